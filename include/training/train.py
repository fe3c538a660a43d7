"""One training run: from a job to its result."""
# ruff: noqa: TID253 - the trainer itself; `__main__` imports it once there is something to train

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from include import objects
from include.settings import settings
from include.training import history, provenance, tracking
from include.training.callbacks import CheckpointUpload, Progress, StepControl
from include.training.checkpoints import Checkpoints
from include.training.errors import Stopped, TrainingError
from include.training.fast import Prepared, prepare
from include.training.fast.hardware import device_type, limit_threads
from include.training.fast.sampling import SortedInWindows
from include.training.fast.vocabulary import Vocabulary
from include.training.job import Hyperparameters, Job, Result
from include.training.layout import position_limit
from include.training.model import build_classifier, quieten_transformers
from include.training.processes import Processes
from include.training.sources import fetch_base_model
from include.training.stopping import StopRequest
from include.training.token_store import Dataset, Rows, tokenize
from include.training.tracking import Tracker

logger = logging.getLogger(__name__)

WARMUP = 0.1  # of all steps
WEIGHT_DECAY = 0.01
EVALUATION_BATCH = 64


def run(job: Job, folder: str, stop: StopRequest) -> None:
    """Trains a job, or goes on training it, and writes its model and its result.

    Started by torch's launcher, it is one of several processes that train the job together; the first one writes.

    Args:
        job: What to train.
        folder: The job's folder; another attempt's result.json, if that was faster, is left as it is.
        stop: Honoured wherever the run is.

    Raises:
        TrainingError: the job cannot be trained, and why.
        Stopped: as asked; the newest checkpoint is in the folder.
    """
    started = time.monotonic()
    quieten_transformers()
    processes = Processes()
    with processes.folder() as work:
        with processes.main_first():
            run = _begin(job, folder.rstrip("/"), work, processes, started)
        result = run.result(stop)
        if result and objects.create_bytes(f"{run.folder}/result.json", result.model_dump_json(indent=2).encode()):
            run.checkpoints.clear()


def _begin(job: Job, folder: str, work: Path, processes: Processes, started: float) -> "_Run":
    """Fetches what a job needs and prepares it for this machine."""
    limit_threads()
    trainer_hash = _check_trainer(job)
    dataset = Dataset(job.dataset_uri, work)
    set_seed(job.hyperparameters.seed)
    source, revision = _fetch_base_model(job, folder, work, processes)
    model, tokenizer = _build(job, source, dataset.labels)
    train_rows, validation_rows = dataset.rows(tokenizer, job.hyperparameters.max_length)
    device = device_type()
    prepared = prepare(model, device, int(train_rows.lengths().sum()) * job.hyperparameters.epochs)
    vocabulary = _shrink_vocabulary(model, train_rows, validation_rows) if settings().fast else None
    checkpoints = Checkpoints(f"{folder}/checkpoints", work, vocabulary.digest if vocabulary else "plain")
    return _Run(
        job=job,
        folder=folder,
        work=work,
        processes=processes,
        started=started,
        trainer_hash=trainer_hash,
        revision=revision,
        dataset=dataset,
        model=model,
        tokenizer=tokenizer,
        train_rows=train_rows,
        validation_rows=validation_rows,
        device=device,
        prepared=prepared,
        vocabulary=vocabulary,
        checkpoints=checkpoints,
        resumed_from=checkpoints.restore() if processes.main else 0,
    )


def _check_trainer(job: Job) -> str:
    """The hash of this trainer, which may be another than the job's."""
    here = provenance.trainer_hash()
    if job.trainer_hash not in ("", here):
        logger.warning("the job names trainer %s, and this one is %s", job.trainer_hash, here)
    return here


def _fetch_base_model(job: Job, folder: str, work: Path, processes: Processes) -> tuple[str, str]:
    """The same revision in every attempt: an alias may move while a job waits for its next one."""
    pinned = f"{folder}/base_model.json"
    known = job.base_model_revision
    if not known and objects.exists(pinned):
        known = str(objects.read_json(pinned)["revision"])
    source, revision = fetch_base_model(job.base_model, known, job.mlflow_tracking_uri, work / "base")
    if not known and processes.main:
        objects.create_json(pinned, {"revision": revision})
    return source, revision


def _build(job: Job, source: str, labels: list[str]) -> tuple[Any, Any]:
    model, tokenizer = build_classifier(source, labels, job.base_model)
    wanted, limit = job.hyperparameters.max_length, position_limit(model)
    if wanted > limit:
        raise TrainingError(f"max_length {wanted} is more than the {limit} tokens {job.base_model} can take")
    return model, tokenizer


def _shrink_vocabulary(model: Any, train_rows: Rows, validation_rows: Rows) -> Vocabulary:
    size = model.get_input_embeddings().num_embeddings
    vocabulary = Vocabulary(model, train_rows.used(size) | validation_rows.used(size))
    for rows in (train_rows, validation_rows):
        rows.renumber(vocabulary.renumbered)
    return vocabulary


@dataclass
class _Run:
    """What one attempt at a job has in hand."""

    job: Job
    folder: str
    work: Path
    processes: Processes
    started: float
    trainer_hash: str
    revision: str
    dataset: Dataset
    model: Any
    tokenizer: Any
    train_rows: Rows
    validation_rows: Rows
    device: str
    prepared: Prepared
    vocabulary: Vocabulary | None
    checkpoints: Checkpoints
    resumed_from: int

    def tokens(self) -> int:
        """How many tokens the training set has."""
        return int(self.train_rows.lengths().sum())

    def result(self, stop: StopRequest) -> Result | None:
        """Trains; the first process has the result."""
        if not self.processes.main:
            self.train([], stop)
            return None
        facts = self.facts()
        rows = {"train": len(self.train_rows), "validation": len(self.validation_rows)}
        origin = {"base_model_revision": self.revision, "trainer_hash": self.trainer_hash}
        tracker = tracking.start(self.job, self.folder, rows, facts | origin)
        progress = Progress(tracker, len(self.train_rows))
        with _ended_properly(tracker), _out_of_memory_explained(self.job.hyperparameters):
            began = time.monotonic()
            state = self.train([progress, CheckpointUpload(self.checkpoints, stop)], stop)
            trained = time.monotonic()
            found = history.epochs(state.log_history)
            best = history.best(found)
            assert best is not None
            model_uri = self.export(int(best["step"]))
            tracker.log({"best_epoch": best["epoch"], "progress": 1.0}, state.global_step)
        return Result(
            job_id=self.job.job_id,
            model_uri=model_uri,
            mlflow_run_id=tracker.run_id,
            best_epoch=int(best["epoch"]),
            metrics={name: value for name, value in best.items() if name.startswith("validation_")},
            history=found,
            labels=self.dataset.labels,
            rows=rows,
            seconds={
                **(
                    {"to_first_step": round(progress.first_step_at - self.started, 3)} if progress.first_step_at else {}
                ),
                "training": round(trained - began, 3),
                "total": round(time.monotonic() - self.started, 3),
            },
            throughput=progress.throughput(state, self.tokens()),
            versions=provenance.versions(),
            base_model_revision=self.revision,
            trainer_hash=self.trainer_hash,
            image=settings().image,
            dataset_files=self.dataset.hashes(),
            machine=provenance.machine(),
            resumed_from_step=self.resumed_from,
            extra=facts,
        )

    def facts(self) -> dict[str, Any]:
        """How this machine trains this model."""
        return {
            "batches": self.prepared.batches,
            "pooling": "mean" if getattr(self.model, "pools_packed", False) else "cls",
            "precision": "bfloat16" if self.prepared.bfloat16 else "float32",
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "layers": self.prepared.layers,
            "processes": self.processes.number,
        }

    def train(self, callbacks: list[TrainerCallback], stop: StopRequest) -> TrainerState:
        """Trains from the newest checkpoint, or from the start, to the end; the last state."""
        control = StepControl(stop, self.job.hyperparameters.early_stopping_patience, self.processes)
        trainer = self._trainer()
        trainer.remove_callback(PrinterCallback)
        # In this order: what follows a step is decided, then told, then what was saved is sent.
        for callback in (control, *callbacks):
            trainer.add_callback(callback)
        state = self.restored()
        if not self.finished(state):
            with stop.deferred():
                trainer.train(resume_from_checkpoint=str(self.checkpoints.local(state.global_step)) if state else None)
            state = trainer.state
        if signum := stop.signum or control.stopping:
            raise Stopped(signum)
        if state is None or not self.finished(state):
            raise TrainingError("training ended before its last step; run the job again to resume it")
        return state

    def _trainer(self) -> Trainer:
        tunables = self.job.hyperparameters
        if tunables.batch_size % self.processes.number:
            raise TrainingError(
                f"batch_size {tunables.batch_size} cannot be shared evenly by {self.processes.number} processes: "
                "make it a multiple of the number of GPUs"
            )
        self.validation_rows.sort_by_length()  # texts of one length are neighbours then, which leaves little padding
        order = SortedInWindows(self.train_rows.lengths(), tunables.batch_size, tunables.seed)
        return _Trainer(
            order if self.prepared.sorted_by_length else None,
            model=self.model,
            args=training_arguments(tunables, self.work, self.prepared.bfloat16),
            data_collator=self.prepared.collator,
            train_dataset=self.train_rows,
            eval_dataset=self.validation_rows,
            compute_loss_func=mean_cross_entropy,
            compute_metrics=classification_metrics,
        )

    def restored(self) -> TrainerState | None:
        """The state of the newest checkpoint, which is then on the local disk."""
        self.resumed_from = self.processes.agree(self.resumed_from)
        if not self.resumed_from:
            return None
        logger.info("resuming from the checkpoint of step %d", self.resumed_from)
        return TrainerState.load_from_json(str(self.checkpoints.local(self.resumed_from) / "trainer_state.json"))

    def finished(self, state: TrainerState | None) -> bool:
        """Whether nothing is left to train."""
        if state is None:
            return False
        found = history.epochs(state.log_history)
        patience = self.job.hyperparameters.early_stopping_patience
        return bool(state.global_step >= state.max_steps or history.out_of_patience(found, patience))

    def export(self, step: int) -> str:
        """Uploads the best epoch's model with its tokenizer; its URI."""
        self.model.load_state_dict(load_file(self.checkpoints.local(step) / "model.safetensors"))
        if self.vocabulary:
            self.vocabulary.restore()
        target = self.work / "model"
        max_length = self.job.hyperparameters.max_length
        self.tokenizer.model_max_length = max_length
        tokenize(["-"], self.tokenizer, max_length)  # it is saved with the cut of its last call, and may have had none
        self.model.save_pretrained(target)
        self.tokenizer.save_pretrained(target)
        logger.info("uploading the model of step %d", step)
        return objects.upload(target, f"{self.folder}/model")


class _Trainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer, with an order of its own for the training rows if there is one."""

    def __init__(self, order: SortedInWindows | None, **arguments: Any) -> None:
        self._order = order
        super().__init__(**arguments)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self._order or super()._get_train_sampler(train_dataset)


def training_arguments(tunables: Hyperparameters, work: Path, bfloat16: bool) -> TrainingArguments:
    """transformers' arguments for a job; when to log, evaluate and save is decided by callbacks, not here."""
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=tunables.epochs,
        learning_rate=tunables.learning_rate,
        per_device_train_batch_size=tunables.batch_size,
        per_device_eval_batch_size=EVALUATION_BATCH,
        seed=tunables.seed,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP,
        weight_decay=WEIGHT_DECAY,
        use_cpu=not torch.cuda.is_available(),  # bf16 without a GPU has to be told so
        bf16=bfloat16,
        accelerator_config={"split_batches": True},  # however many processes, a step sees batch_size texts
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,  # a loss that is no number is to be seen
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def mean_cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """The mean loss over all texts of a step, however many batches those came in.

    Left to itself, Trainer takes BERT's loss for one that is divided by `num_items_in_batch` already, and with gradient
    accumulation or several processes scales it up (huggingface/transformers#47688).
    """
    total = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, reduction="sum")
    return total / num_items_in_batch


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels that occur in the truth or among the predictions."""
    truth, predicted = prediction.label_ids, prediction.predictions.argmax(-1)
    size = prediction.predictions.shape[-1]
    hits = np.bincount(truth[truth == predicted], minlength=size)
    either = np.bincount(truth, minlength=size) + np.bincount(predicted, minlength=size)
    occurring = either > 0
    macro_f1 = (2 * hits[occurring] / either[occurring]).mean()
    return {"accuracy": float((truth == predicted).mean()), "macro_f1": float(macro_f1)}


@contextmanager
def _ended_properly(tracker: Tracker) -> Iterator[None]:
    try:
        yield
    except Stopped:
        tracker.close("KILLED")
        raise
    except BaseException:
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")


@contextmanager
def _out_of_memory_explained(tunables: Hyperparameters) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # On the CPU torch has no exception of its own for it.
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"out of memory with batch_size {tunables.batch_size} and max_length {tunables.max_length}: "
            "lower one of them, or give the task more memory"
        ) from error
