"""Lets MLflow load a registered version by itself: ``mlflow.pyfunc.load_model("models:/<name>@champion")``.

The project must be importable where that is called, since its scorer does the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TextClassifier:
    """Predicts labels with the model that lies in a local folder."""

    folder: str

    def predict(self, model_input: "Sequence[str] | pd.DataFrame", params: dict[str, Any] | None = None) -> list[str]:
        """The label of each text: of a sequence of n, or of a DataFrame's column ``text`` (or its only column)."""
        from include.training.scoring import score

        texts: Any = model_input
        if hasattr(texts, "columns"):
            texts = texts["text" if "text" in texts.columns else texts.columns[0]]
        return list(score(self.folder, list(texts)).predicted)


def _load_pyfunc(path: str) -> TextClassifier:
    """What MLflow calls with the folder it has downloaded."""
    return TextClassifier(path)
