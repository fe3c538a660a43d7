import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, Trainer, pipeline

from include import objects
from include.training import callbacks, tracking, train
from include.training.__main__ import main
from include.training.batches import padded_batches
from include.training.checkpoints import Checkpoints
from include.training.errors import Stopped, TrainingError
from include.training.fast.hardware import bfloat16_is_quick
from include.training.job import Hyperparameters, Job, Result
from include.training.model import build_classifier
from include.training.scoring import score
from include.training.stopping import StopRequest
from include.training.train import mean_cross_entropy, training_arguments
from tests.unit.training_models import job, rows, save_bert, save_dataset


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="module")
def dataset_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_dataset(tmp_path_factory.mktemp("data") / "5eed", rows(96), rows(30, seed=1))


@pytest.fixture(scope="module")
def cls_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("cls"), mean_pooling=False)


@pytest.fixture(scope="module")
def mean_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("mean"), mean_pooling=True)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For tiny models a second thread costs more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """main() takes signals over; a test must not."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def _submit(job: Job, folder: Path) -> str:
    """The URI of the job's folder."""
    uri = f"file://{folder}/jobs/{job.job_id}"
    objects.write_bytes(f"{uri}/job.json", job.model_dump_json().encode())
    return uri


class StopAfter(StopRequest):
    """Asks to stop at a step, as a signal would that arrives there."""

    def __init__(self, step: int) -> None:
        self._looks = step  # each step looks once
        super().__init__()

    @property
    def signum(self) -> int:
        self._looks -= 1
        return 15 if self._looks < 0 else 0

    @signum.setter
    def signum(self, value: int) -> None:
        pass


def run(job: Job, folder: str, stop: StopRequest) -> Result:
    """Trains the job and reads its result."""
    train.run(job, folder, stop)
    return Result.model_validate(objects.read_json(f"{folder}/result.json"))


def _weights(result: Result) -> dict[str, torch.Tensor]:
    return load_file(Path(result.model_uri.removeprefix("file://")) / "model.safetensors")


@pytest.fixture(scope="module")
def learnt(dataset_uri: str, mean_model: Path, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Of a whole training."""
    wanted = job(dataset_uri, mean_model, tracking_uri, learning_rate=1e-2)
    return run(wanted, _submit(wanted, tmp_path_factory.mktemp("learnt")), StopRequest())


@pytest.fixture(scope="module")
def uninterrupted(
    dataset_uri: str, mean_model: Path, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Result:
    """Of a whole training, by steps so small that what is lost of it shows."""
    wanted = job(dataset_uri, mean_model, tracking_uri)
    return run(wanted, _submit(wanted, tmp_path_factory.mktemp("uninterrupted")), StopRequest())


def _assert_same(one: Result, other: Result) -> None:
    for before, after in zip(one.history, other.history, strict=True):
        assert after == pytest.approx(before, abs=1e-5)
    weights = _weights(other)
    for name, tensor in _weights(one).items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=0)


def test_learns_and_says_all_about_it(learnt: Result, tracking_uri: str) -> None:
    result, folder = learnt, learnt.model_uri.removesuffix("/model")
    assert result.metrics["validation_accuracy"] > 0.8
    assert result.labels == ["card", "fee", "transfer"]
    assert [epoch["epoch"] for epoch in result.history] == [1, 2, 3]
    assert result.history[0]["train_loss"] > result.history[-1]["train_loss"]
    assert result.extra["batches"] == "sorted"
    assert result.extra["pooling"] == "mean"
    assert Result.model_validate(objects.read_json(f"{folder}/result.json")) == result
    assert objects.find(f"{folder}/checkpoints") == []
    run_info = MlflowClient(tracking_uri).get_run(result.mlflow_run_id)
    assert run_info.info.status == "FINISHED"
    assert run_info.data.tags["job_id"] == result.job_id
    assert run_info.data.tags["dataset_id"] == "5eed"
    assert run_info.data.params["learning_rate"] == "0.01"
    assert run_info.data.params["train_rows"] == "96"
    assert run_info.data.metrics["progress"] == 1.0
    assert run_info.data.metrics["validation_macro_f1"] == pytest.approx(result.history[-1]["validation_macro_f1"])
    curve = MlflowClient(tracking_uri).get_metric_history(result.mlflow_run_id, "validation_loss")
    assert [point.step for point in curve] == [12, 24, 36]


def test_plain_trainer_is_one_setting_away_and_learns_the_same(
    learnt: Result, dataset_uri: str, mean_model: Path, tracking_uri: str, tmp_path: Path, set_env: Callable[..., None]
) -> None:
    wanted = job(dataset_uri, mean_model, tracking_uri, learning_rate=1e-2)
    set_env(BERT_FAST="false")
    plain = run(wanted, _submit(wanted, tmp_path / "plain"), StopRequest())
    assert plain.extra["batches"] == "padded"
    assert learnt.metrics == pytest.approx(plain.metrics, abs=0.15)
    assert {name: one.shape for name, one in _weights(learnt).items()} == {
        name: one.shape for name, one in _weights(plain).items()
    }


def test_run_twice_returns_the_first_result_untouched(
    dataset_uri: str, mean_model: Path, tracking_uri: str, tmp_path: Path
) -> None:
    wanted = job(dataset_uri, mean_model, tracking_uri, epochs=1)
    folder = _submit(wanted, tmp_path)
    assert main([f"{folder}/job.json"]) == 0
    first = objects.read_bytes(f"{folder}/result.json")
    assert main([f"{folder}/job.json"]) == 0
    assert objects.read_bytes(f"{folder}/result.json") == first


@pytest.mark.parametrize("step", [5, 12, 30])
def test_stopped_and_resumed_ends_like_uninterrupted(
    step: int, uninterrupted: Result, dataset_uri: str, mean_model: Path, tracking_uri: str, tmp_path: Path
) -> None:
    wanted = job(dataset_uri, mean_model, tracking_uri)
    folder = _submit(wanted, tmp_path)
    with pytest.raises(Stopped):
        run(wanted, folder, StopAfter(step))
    assert not objects.exists(f"{folder}/result.json")
    run_id = objects.read_json(f"{folder}/mlflow_run.json")["run_id"]
    assert MlflowClient(tracking_uri).get_run(run_id).info.status == "KILLED"
    resumed = run(wanted, folder, StopRequest())
    assert 0 < resumed.resumed_from_step <= step + 12
    assert resumed.mlflow_run_id == run_id
    assert MlflowClient(tracking_uri).get_run(run_id).info.status == "FINISHED"
    _assert_same(uninterrupted, resumed)


def test_killed_after_the_last_step_nothing_is_trained_again(
    dataset_uri: str, mean_model: Path, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = job(dataset_uri, mean_model, tracking_uri, epochs=2)
    folder = _submit(wanted, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("include.training.train._Run.export", lambda self, step: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(wanted, folder, StopRequest())
    result = run(wanted, folder, StopRequest())
    assert result.resumed_from_step == 24
    assert len(result.history) == 2


def test_early_stopping_keeps_the_best_epoch(cls_model: Path, tracking_uri: str, tmp_path: Path) -> None:
    # Validation labels are turned round, so that learning makes them worse.
    turned = [(text, {"card": "fee", "fee": "transfer", "transfer": "card"}[label]) for text, label in rows(30, seed=1)]
    dataset = save_dataset(tmp_path / "data", rows(96), turned)
    wanted = job(dataset, cls_model, tracking_uri, epochs=12, early_stopping_patience=2)
    folder = _submit(wanted, tmp_path)
    result = run(wanted, folder, StopRequest())
    scores = [epoch["validation_macro_f1"] for epoch in result.history]
    assert len(scores) == result.best_epoch + 2 < 12
    assert result.metrics["validation_macro_f1"] == max(scores)
    predicted = score(result.model_uri, [text for text, _ in turned]).predicted
    assert sum(a == b for a, (_, b) in zip(predicted, turned, strict=True)) / 30 == pytest.approx(
        result.metrics["validation_accuracy"], abs=0.04
    )


def test_a_cls_model_loads_in_plain_transformers(
    dataset_uri: str, cls_model: Path, tracking_uri: str, tmp_path: Path
) -> None:
    wanted = job(dataset_uri, cls_model, tracking_uri, epochs=4)
    result = run(wanted, _submit(wanted, tmp_path), StopRequest())
    assert result.extra["pooling"] == "cls"
    folder = result.model_uri.removeprefix("file://")
    assert type(AutoModelForSequenceClassification.from_pretrained(folder)).__name__ == "BertForSequenceClassification"
    texts = [text for text, _ in rows(20, seed=5)] + ["card " * 30]
    scores = score(result.model_uri, texts)
    answers = pipeline("text-classification", folder, top_k=None)(texts, truncation=True, batch_size=4)
    near = 5e-3 if bfloat16_is_quick("cpu") else 1e-4  # plain transformers answers in float32 everywhere
    for text, answer, row in zip(texts, answers, scores.probabilities, strict=True):
        plain = {one["label"]: one["score"] for one in answer}
        assert [plain[label] for label in scores.labels] == pytest.approx(row.tolist(), abs=near), text


def test_training_goes_on_from_a_registered_champion(
    uninterrupted: Result, dataset_uri: str, tracking_uri: str, tmp_path: Path
) -> None:
    champion = uninterrupted
    client = MlflowClient(tracking_uri)
    client.create_registered_model("tiny")
    version = client.create_model_version("tiny", champion.model_uri, champion.mlflow_run_id)
    client.set_registered_model_alias("tiny", "champion", version.version)
    second = job(dataset_uri, "models:/tiny@champion", tracking_uri, epochs=1, learning_rate=1e-6)
    result = run(second, _submit(second, tmp_path), StopRequest())
    assert result.metrics["validation_accuracy"] >= champion.metrics["validation_accuracy"] - 0.05


def test_a_diverging_loss_ends_with_advice(
    dataset_uri: str, cls_model: Path, tracking_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = job(dataset_uri, cls_model, tracking_uri, learning_rate=1e30)
    folder = _submit(wanted, tmp_path)
    assert main([f"{folder}/job.json"]) == 1
    assert "training diverged; lower learning_rate" in caplog.text
    run_id = objects.read_json(f"{folder}/mlflow_run.json")["run_id"]
    assert MlflowClient(tracking_uri).get_run(run_id).info.status == "FAILED"


def test_max_length_beyond_the_models_is_refused(
    dataset_uri: str, cls_model: Path, tracking_uri: str, tmp_path: Path
) -> None:
    wanted = job(dataset_uri, cls_model, tracking_uri, max_length=64)
    with pytest.raises(TrainingError, match="max_length 64 is more than the 40 tokens"):
        run(wanted, _submit(wanted, tmp_path), StopRequest())


@pytest.mark.parametrize("changed", ["missing", "not json", "not a job"])
def test_a_job_that_cannot_be_read_is_named(changed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"file://{tmp_path}/jobs/1/job.json"
    content = {"not json": "{", "not a job": json.dumps({"epochs": 3})}
    if changed in content:
        objects.write_bytes(uri, content[changed].encode())
    assert main([uri]) == 1
    assert uri in caplog.text


def test_an_mlflow_server_that_does_not_answer_is_named(
    dataset_uri: str, cls_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "START_SECONDS", 0.2)
    wanted = job(dataset_uri, cls_model, "http://127.0.0.1:9")
    assert main([f"{_submit(wanted, tmp_path)}/job.json"]) == 1
    assert "correct MLFLOW_TRACKING_URI" in caplog.text


class _FailingClient:
    """A server that is away for the first requests."""

    def __init__(self, failures: int) -> None:
        self.failures, self.metrics, self.status = failures, [], ""

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("gone")
        self.metrics += [(metric.key, metric.value) for metric in metrics]

    def set_terminated(self, run_id: str, status: str) -> None:
        self.status = status


def test_metrics_wait_for_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.01)
    client = _FailingClient(failures=3)
    tracker = tracking.Tracker(client, "run")
    for value in range(5):
        tracker.log({"loss": value}, step=value)
    tracker.close("FINISHED")
    assert client.metrics == [("loss", float(value)) for value in range(5)]
    assert client.status == "FINISHED"


def _one_step(batch: int, accumulation: int, cls_model: Path, tmp_path: Path) -> tuple[float, torch.Tensor]:
    """The loss that is logged for the first step, and a weight after it."""
    model, _ = build_classifier(str(cls_model), ["a", "b", "c"], "tiny")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tunables = Hyperparameters(epochs=1, learning_rate=0.1, batch_size=batch, max_length=16, seed=3)
    arguments = training_arguments(tunables, tmp_path, bfloat16=False)
    arguments.gradient_accumulation_steps = accumulation
    arguments.bf16, arguments.optim, arguments.warmup_steps, arguments.logging_strategy = False, "sgd", 0, "epoch"
    data = [{"input_ids": [2, *range(5, 6 + index), 3], "labels": index % 3} for index in range(16)]
    trainer = Trainer(model, arguments, padded_batches(model), train_dataset=data, compute_loss_func=mean_cross_entropy)
    trainer.train()
    return trainer.state.log_history[0]["loss"], model.classifier.weight.detach().clone()


def test_gradient_accumulation_scales_neither_loss_nor_gradient(cls_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    loss, weight = _one_step(16, 1, cls_model, tmp_path)
    torch.manual_seed(0)
    accumulated_loss, accumulated_weight = _one_step(4, 4, cls_model, tmp_path)
    assert accumulated_loss == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(accumulated_weight, weight, atol=1e-5, rtol=0)


def test_storage_that_fails_costs_a_checkpoint_and_not_the_training(
    dataset_uri: str,
    mean_model: Path,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(*ignored: object) -> None:
        raise OSError("503 SlowDown")

    monkeypatch.setattr(Checkpoints, "upload", away)
    wanted = job(dataset_uri, mean_model, tracking_uri, epochs=2)
    result = run(wanted, _submit(wanted, tmp_path), StopRequest())
    assert len(result.history) == 2
    assert "checkpoint of step 12 was not uploaded: 503 SlowDown" in caplog.text


@pytest.mark.parametrize(("seconds", "said"), [(45, "45s"), (190, "3m10s"), (7500, "2h05m")])
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert callbacks.duration(seconds) == said
