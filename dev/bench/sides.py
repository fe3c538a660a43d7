"""The sides of the training benchmark: what each one is started with."""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dev.bench.plan import Recipe
from dev.bench.runs import Launch, timed
from include import objects
from include.training.job import Hyperparameters, Job


@dataclass(frozen=True)
class Arguments:
    """Arguments of plain Trainer beyond the common ones, and how the tables call them."""

    name: str
    values: tuple[str, ...] = ()
    micro_batches: int = 1  # that one optimizer step is split into
    steps: int = 0  # to train on all rows; 0: an epoch of a few rows


DEFAULTS = Arguments("defaults")
_DYNAMIC = ("--pad_to_max_length", "False")
DYNAMIC_PADDING = Arguments("dynamic padding", _DYNAMIC)
_SAMPLING = (
    DYNAMIC_PADDING,
    # Sorts 50 batches at a time, the longest texts first, and less on few rows: those 50 steps on all rows are its due.
    Arguments("group_by_length", (*_DYNAMIC, "--train_sampling_strategy", "group_by_length"), steps=50),
    *(
        Arguments(
            f"batch_rebalance {32 // parts}x{parts}", (*_DYNAMIC, "--train_sampling_strategy", "batch_rebalance"), parts
        )
        for parts in (2, 4, 8)
    ),
)


def candidates(*, bfloat16: bool) -> tuple[Arguments, ...]:
    """The arguments among which the quickest are looked for, those in bfloat16 only where the processor has it.

    Emulated, thirteen matrix products that took two seconds in float32 were not through in ten minutes.
    """
    halved = (replace(one, name=f"{one.name}, bf16", values=(*one.values, "--bf16")) for one in _SAMPLING)
    return (*_SAMPLING, *halved) if bfloat16 else _SAMPLING


@dataclass(frozen=True)
class Baseline:
    """transformers' run_classification with some arguments.

    Args:
        model: Folder of the base model.
        recipe: The common hyperparameters.
        script: The script itself, which also needs the packages datasets and evaluate, and the Hugging Face hub for its
            metric; None for what stands in for it here.
        on_gpu: Whether it may use one.
    """

    model: Path
    recipe: Recipe
    script: Path | None = None
    on_gpu: bool = False

    def launch(self, workload: Path, folder: Path, cache: Path, arguments: Arguments = DEFAULTS) -> Launch:
        """Training on a workload, with the output in one folder and what can be used again in another."""
        recipe = self.recipe
        common = {
            "model_name_or_path": self.model,
            "max_seq_length": recipe.max_length,
            "train_file": workload / "train.csv",
            "validation_file": workload / "validation.csv",
            "output_dir": folder / "output",
            "per_device_train_batch_size": recipe.batch_size // arguments.micro_batches,
            "gradient_accumulation_steps": arguments.micro_batches,
            "num_train_epochs": recipe.epochs,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
            "warmup_steps": recipe.warmup,
            "seed": recipe.seed,
        }
        if arguments.steps:
            common["max_steps"] = arguments.steps
        options = [word for name, value in common.items() for word in (f"--{name}", str(value))]
        program = str(self.script) if self.script else "dev.bench.baseline"
        device = [] if self.on_gpu else ["--use_cpu"]
        command = timed(folder, program, [*options, "--do_train", "--do_eval", *device, *arguments.values])
        return Launch(command, {"HF_DATASETS_CACHE": str(cache)}, on_gpu=self.on_gpu)


@dataclass(frozen=True)
class Ours:
    """The project's trainer on a lake in a local folder.

    Args:
        model: Folder of the base model.
        recipe: The common hyperparameters.
        mlflow: URI of a tracking store whose tables are there already, as a server's are.
        on_gpu: Whether it may use one.
    """

    model: Path
    recipe: Recipe
    mlflow: str
    on_gpu: bool = False

    def launch(self, workload: Path, folder: Path, cache: Path) -> Launch:
        """Training on a workload as a job that was not there before, with the lake in `cache`."""
        # A dataset's id stands for its content; each lake's is another, so that no cache elsewhere knows it.
        dataset = cache / "datasets" / hashlib.sha256(str(cache).encode()).hexdigest()[:16]
        if not dataset.exists():
            shutil.copytree(workload, dataset, ignore=shutil.ignore_patterns("*.csv"))
        job = self._job(dataset.as_uri(), folder.name)
        uri = objects.write_json(f"{cache.as_uri()}/jobs/{job.job_id}/job.json", job.model_dump())
        return Launch(
            timed(folder, "include.training", [uri]),
            {"BERT_BUCKET": cache.as_uri(), "BERT_LOCAL_BASE_MODELS": "true"},
            on_gpu=self.on_gpu,
        )

    def result(self, launch: Launch) -> dict[str, Any]:
        """The result.json of a launch that is through."""
        return objects.read_json(launch.command[-1].replace("/job.json", "/result.json"))

    def _job(self, dataset_uri: str, name: str) -> Job:
        return Job(
            dataset_uri=dataset_uri,
            model_name=name,
            base_model=str(self.model),
            hyperparameters=Hyperparameters(
                epochs=self.recipe.epochs,
                learning_rate=self.recipe.learning_rate,
                batch_size=self.recipe.batch_size,
                max_length=self.recipe.max_length,
                seed=self.recipe.seed,
                early_stopping_patience=0,
            ),
            mlflow_tracking_uri=self.mlflow,
            mlflow_experiment="benchmark",
        )


def without_mean_pooling(model: Path, folder: Path) -> Path:
    """The same base model without the files that ask for mean pooling: a classifier on it has BERT's own head."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("1_Pooling", "modules.json"))
    return folder
