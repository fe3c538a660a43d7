"""Lets MLflow load a registered version by itself: ``mlflow.pyfunc.load_model("models:/<name>@champion")``.

Where the project cannot be imported, this and what it imports come from the version's own ``code.zip``.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMN = "text"


def text_column(names: Sequence[Any]) -> Any:
    """Which of a table's columns has the texts: the one that is called ``text``, or the only one. Raises ValueError."""
    if TEXT_COLUMN in names:
        return TEXT_COLUMN
    if len(names) == 1:
        return names[0]
    raise ValueError(f"there is no column {TEXT_COLUMN} among {', '.join(map(repr, names))}")


class TextClassifier:
    """Predicts labels with the model that lies in a local folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._scorer: Any = None

    def predict(
        self,
        model_input: "str | Sequence[str] | Mapping[str, Any] | pd.DataFrame",
        params: dict[str, Any] | None = None,
    ) -> "list[str] | pd.DataFrame":
        """The label of each text: of one, of n in a sequence, or in the column ``text`` of a frame, or its only column.

        Args:
            model_input: The texts.
            params: ``{"probabilities": True}`` for a DataFrame of n rows with a column for each label instead.

        Raises:
            ValueError: there is no text column, or something is no text; which.
        """
        from include.training.scoring import Scorer

        texts = _texts(model_input)
        self._scorer = self._scorer or Scorer(self.folder)
        found = self._scorer.probabilities(self._scorer.tokenize(texts))
        labels = self._scorer.labels
        if (params or {}).get("probabilities"):
            import pandas as pd

            return pd.DataFrame(found, columns=labels)
        return [labels[index] for index in found.argmax(-1)] if texts else []


def _texts(given: Any) -> list[str]:
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping) or hasattr(given, "columns"):
        given = given[text_column(list(getattr(given, "columns", given)))]
        given = [given] if isinstance(given, str) else given
    if given is None:
        raise ValueError("there are no texts: give a text, a list of texts or a DataFrame")
    texts = list(given)
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"row {at} is {text!r}, which is no text")
    return texts


def _load_pyfunc(path: str) -> TextClassifier:
    """What MLflow calls with the folder it has downloaded."""
    return TextClassifier(path)
