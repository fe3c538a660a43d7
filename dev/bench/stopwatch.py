"""A stopwatch in the shape of a callback of transformers' Trainer."""

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Times all optimizer steps after the first, data loading included, evaluations and saves excluded.

    Args:
        report: A file; written after the first step and at the end of training. ``first_step_at`` (seconds since the
            epoch); ``steps``, ``seconds``, ``cpu_seconds`` and real ``tokens`` of the timed steps. Sides differ in
            which texts they have in the first step: transformers' ``group_by_length`` puts the longest there.
    """

    def __init__(self, report: Path) -> None:
        self._report = report
        self._since: float | None = None
        self._cpu_since = 0.0
        self._tokens = 0  # of the step that is under way
        self._found: dict[str, float] = {"steps": 0, "seconds": 0.0, "cpu_seconds": 0.0, "tokens": 0}

    def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
        """Counts the tokens that the model is given."""
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, model: Any, args: Any, batch: dict[str, Any]) -> None:
        # Packed batches have no mask, and nothing but tokens.
        self._tokens += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Goes on after a pause."""
        self._tokens = 0
        if self._since is None and "first_step_at" in self._found:
            self._since, self._cpu_since = time.monotonic(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Counts the step."""
        now, cpu_now = time.monotonic(), time.process_time()
        if self._since is None:
            self._found["first_step_at"] = time.time()
            self._write()
        else:
            self._found["steps"] += 1
            self._found["seconds"] += now - self._since
            self._found["cpu_seconds"] += cpu_now - self._cpu_since
            self._found["tokens"] += self._tokens
        self._since, self._cpu_since = now, cpu_now

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Pauses: what happens until the next step is not training."""
        self._since = None

    def on_save(self, *_: Any, **__: Any) -> None:
        """Pauses, as for an evaluation."""
        self._since = None

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Writes what was found."""
        self._write()

    def _write(self) -> None:
        """Writes the file in one go, since another process waits for it."""
        draft = self._report.with_suffix(".draft")
        draft.write_text(json.dumps(self._found))
        draft.replace(self._report)
