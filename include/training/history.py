"""What the log in a checkpoint says about each epoch: derived and never counted, so it survives every resume."""

from collections.abc import Iterable
from typing import Any

Epoch = dict[str, float]

BEST_BY = "validation_macro_f1"


def epochs(log: Iterable[dict[str, Any]]) -> list[Epoch]:
    """One entry per evaluated epoch.

    Args:
        log: transformers' ``log_history``: training entries hold the mean loss since the entry before.

    Returns:
        Per epoch: epoch, step, train_loss (mean over its steps), learning_rate at its end, validation_loss,
        validation_accuracy, validation_macro_f1.
    """
    found: list[Epoch] = []
    seen = start = 0
    total = rate = 0.0
    for entry in log:
        step = int(entry["step"])
        if "loss" in entry:
            total += entry["loss"] * (step - seen)
            seen, rate = step, entry["learning_rate"]
        elif "eval_loss" in entry:
            validation = {f"validation_{key}": float(entry[f"eval_{key}"]) for key in ("loss", "accuracy", "macro_f1")}
            numbers = {"epoch": float(round(entry["epoch"])), "step": float(step)}
            found.append(numbers | {"train_loss": total / max(step - start, 1), "learning_rate": rate} | validation)
            total, start = 0.0, step
    return found


def best(history: list[Epoch]) -> Epoch | None:
    """The epoch with the highest validation macro-F1, the first of equals."""
    return max(history, key=lambda epoch: epoch[BEST_BY], default=None)


def best_step(history: list[Epoch]) -> int:
    """The step of the best epoch, 0 before the first."""
    epoch = best(history)
    return int(epoch["step"]) if epoch else 0


def out_of_patience(history: list[Epoch], patience: int) -> bool:
    """Whether the last `patience` epochs were none the better; never with a patience of 0."""
    epoch = best(history)
    return bool(patience and epoch and len(history) - 1 - history.index(epoch) >= patience)
