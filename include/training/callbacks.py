"""What happens beside the steps: when to log, evaluate, save and stop, and who hears of it."""
# ruff: noqa: TID253 - callbacks of transformers' Trainer; imported with it, inside functions

import logging
import math
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from include.training import history
from include.training.checkpoints import Checkpoints
from include.training.errors import TrainingError
from include.training.processes import Processes
from include.training.stopping import StopRequest
from include.training.tracking import Tracker

logger = logging.getLogger(__name__)

LOG_SECONDS = 3.0
CHECKPOINT_SECONDS = 300.0
UPLOAD_SHARE = 0.1  # of the time may go into uploads: epochs of seconds are cheaper to repeat than to keep


class StepControl(TrainerCallback):  # type: ignore[misc]
    """Logs every few seconds, saves every few minutes, evaluates and saves after each epoch, stops when asked.

    Args:
        stop: Looked at after each step.
        patience: Epochs without a better macro-F1 before training ends; 0 for never.
        processes: The first one decides for all: what follows from a decision, they do together.
    """

    def __init__(self, stop: StopRequest, patience: int, processes: Processes) -> None:
        self._stop = stop
        self._patience = patience
        self._processes = processes
        self._logged = self._saved = time.monotonic()
        self.stopping = 0  # the signal by which all processes stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Between epochs' ends only: there, `on_epoch_end` decides, so that no epoch goes without its evaluation."""
        now = time.monotonic()
        save = now - self._saved >= CHECKPOINT_SECONDS
        log = state.global_step == 1 or now - self._logged >= LOG_SECONDS
        self.stopping, save, log = self._processes.agree((self._stop.signum, save, log))
        if _ends_epoch(state):
            return
        save = save or bool(self.stopping)
        # A checkpoint's log reaches up to its step: the epoch's mean loss is derived from it after a resume.
        control.should_log = log or save
        control.should_save = save
        control.should_training_stop = control.should_training_stop or bool(self.stopping)
        if control.should_log:
            self._logged = now

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """transformers calls this after a stop inside an epoch too, where all is done already."""
        ended = _ends_epoch(state)
        control.should_log = control.should_evaluate = control.should_save = ended
        if self.stopping:
            control.should_training_stop = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stops after as many epochs without a better macro-F1 as the job has patience for."""
        if history.out_of_patience(history.epochs(state.log_history), self._patience):
            logger.info("stopping early: %d epochs without a better macro-F1", self._patience)
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Counts the next interval from here, once every process has written its part."""
        self._saved = time.monotonic()
        self._processes.agree(None)


def _ends_epoch(state: TrainerState) -> bool:
    return bool(state.global_step % steps_per_epoch(state) == 0)


def steps_per_epoch(state: TrainerState) -> int:
    """Optimizer steps in one epoch."""
    return int(state.max_steps // state.num_train_epochs)


class CheckpointUpload(TrainerCallback):  # type: ignore[misc]
    """Sends saved checkpoints to the job's folder: always when asked to stop, else as often as it is worth its time.

    Args:
        checkpoints: The job's.
        stop: Whether this is the last chance.
    """

    def __init__(self, checkpoints: Checkpoints, stop: StopRequest) -> None:
        self._checkpoints = checkpoints
        self._stop = stop
        self._next = 0.0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Storage that fails for a while costs a checkpoint, not the training."""
        started = time.monotonic()
        best = history.best_step(history.epochs(state.log_history))
        if started < self._next and not self._stop.signum:
            self._checkpoints.prune_local(state.global_step, best)
            return
        try:
            self._checkpoints.upload(state.global_step, best)
        except Exception as error:  # s3fs, botocore and aiohttp each raise their own
            logger.warning("checkpoint of step %d was not uploaded: %s", state.global_step, error)
        else:
            took = time.monotonic() - started
            logger.info("checkpoint of step %d uploaded in %.1f s", state.global_step, took)
            self._next = time.monotonic() + took / UPLOAD_SHARE


class Progress(TrainerCallback):  # type: ignore[misc]
    """Tells the log and MLflow how training goes, and ends it when the loss is no number any more.

    Args:
        tracker: The job's MLflow run.
        rows: Of the training set.
    """

    def __init__(self, tracker: Tracker, rows: int) -> None:
        self._tracker = tracker
        self._rows = rows
        self._since = (0.0, 0)  # time and step of the last line
        self._stepped = 0.0  # when the last step was done, 0 if something else came after it
        self._steps = (0, 0.0)  # counted, and the seconds they took
        self.first_step_at = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Counts the pace from here."""
        self._since = (time.monotonic(), state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Times the steps, but for those that follow a start, an evaluation or a checkpoint."""
        now = time.monotonic()
        self.first_step_at = self.first_step_at or now
        if self._stepped:
            steps, seconds = self._steps
            self._steps = (steps + 1, seconds + now - self._stepped)
        self._stepped = now

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What it took is no step's time."""
        self._stepped = 0.0

    def throughput(self, state: TrainerState, tokens: int) -> dict[str, float]:
        """Texts and tokens per second, evaluations and checkpoints left out; empty if there were too few steps to tell.

        Args:
            state: At the end.
            tokens: Of the training set.
        """
        steps, seconds = self._steps
        if not steps:
            return {}
        epochs = steps / steps_per_epoch(state) / seconds
        return {
            "texts_per_second": round(epochs * self._rows, 2),
            "tokens_per_second": round(epochs * tokens, 1),
            "steps": steps,
        }

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Training entries only; evaluations have their own line."""
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} at step {state.global_step}: training diverged; "
                f"lower learning_rate (it is {args.learning_rate:g})"
            )
        pace = self._texts_per_second(state)
        eta = (state.max_steps - state.global_step) * self._rows / steps_per_epoch(state) / pace
        logger.info(
            "epoch %d/%d step %d/%d (%.0f %%) loss %.3f lr %.1e %.0f texts/s eta %s",
            math.ceil(state.epoch),
            state.num_train_epochs,
            state.global_step,
            state.max_steps,
            100 * state.global_step / state.max_steps,
            logs["loss"],
            logs["learning_rate"],
            pace,
            duration(eta),
        )
        metrics = {"train_loss": logs["loss"], "learning_rate": logs["learning_rate"], "texts_per_second": pace}
        self._tracker.log(metrics | {"progress": state.global_step / state.max_steps}, state.global_step)

    def _texts_per_second(self, state: TrainerState) -> float:
        now, step = time.monotonic(), state.global_step
        texts = (step - self._since[1]) * self._rows / steps_per_epoch(state)
        pace = texts / max(now - self._since[0], 1e-9)
        self._since = (now, step)
        return float(max(pace, 1e-9))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The epoch's line, and its validation metrics to MLflow."""
        found = history.epochs(state.log_history)
        epoch = found[-1]
        logger.info(
            "epoch %d/%d done: train loss %.3f, validation loss %.3f, accuracy %.4f, macro-F1 %.4f%s",
            epoch["epoch"],
            state.num_train_epochs,
            epoch["train_loss"],
            epoch["validation_loss"],
            epoch["validation_accuracy"],
            epoch["validation_macro_f1"],
            " (best so far)" if history.best(found) is epoch else "",
        )
        metrics = {name: value for name, value in epoch.items() if name.startswith("validation_")}
        self._tracker.log(
            metrics | {"epoch": epoch["epoch"], "epoch_train_loss": epoch["train_loss"]}, state.global_step
        )
        self._since = (time.monotonic(), state.global_step)
        self._stepped = 0.0


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45s, 3m10s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
