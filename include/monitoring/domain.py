"""What has changed: a classifier that tells new texts from old ones names the words and the texts that are new.

It is Lipton's and Rabanser's domain classifier ("Failing Loudly", 2019) on words: it decides nothing, the drift test
does. Its texts are also those that are worth most to be labelled.
"""
# ruff: noqa: TID253 - arrays are what this module is about

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from include.monitoring.assessment import Assessment
from include.monitoring.traffic import some_rows

Row = Mapping[str, Any]
"""A row of the prediction log."""

TYPICAL = 10
WORDS = 12
MOST_TEXTS = 2_000  # of either side
LEAST_TEXTS = 50
FOLDS = 5
TO_LABEL = 100
ALIKE = 0.8  # cosine of two texts of which one is enough to label


@dataclass(frozen=True, eq=False)
class Difference:
    """How new texts differ from those before.

    Args:
        auc: how well they are told apart, on texts that the classifier has not learnt from; 0.5 is not at all.
        words: the most typical of the new.
        typical: the new texts that are the most typical of them, each once.
        novelty: (new texts,) how probable it is that each is new, likewise.
    """

    auc: float
    words: tuple[str, ...]
    typical: tuple[str, ...]
    novelty: Sequence[float]


def differ(before: Sequence[str], now: Sequence[str]) -> Difference | None:
    """What new texts have that those before had not; None of fewer than 50 on a side, or of texts without words."""
    if min(len(before), len(now)) < LEAST_TEXTS:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    texts = [*before[:MOST_TEXTS], *now[:MOST_TEXTS]]
    new = np.arange(len(texts)) >= min(len(before), MOST_TEXTS)
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2), token_pattern=r"(?u)\b\w\w+\b")
    try:
        words = vectorizer.fit_transform(texts)
    except ValueError:  # no word is in two texts
        return None
    model = LogisticRegression(C=10, class_weight="balanced", max_iter=500)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    told = cross_val_predict(model, words, new, cv=folds, method="predict_proba")[:, 1]
    weights = model.fit(words, new).coef_[0] * np.asarray(words[new].mean(0)).ravel()
    names = vectorizer.get_feature_names_out()
    best = [str(names[at]) for at in np.argsort(-weights)[:WORDS] if weights[at] > 0]
    novelty = told[new]
    order = np.argsort(-novelty, kind="stable")
    typical = list(dict.fromkeys(str(texts[int(new.argmax()) + at]) for at in order))[:TYPICAL]
    return Difference(float(roc_auc_score(new, told)), tuple(best), tuple(typical), novelty.tolist())


def rows_around(model: str, assessment: Assessment) -> tuple[list[Row], list[Row]]:
    """Some rows of the reference, and of the window that alarms clearest, as far as the log has their texts."""
    if not assessment.reference or not assessment.recent or not assessment.alarms:
        return [], []
    first, last = assessment.reference
    changed = assessment.recent[1] - timedelta(days=assessment.alarms[0].window - 1)
    return _rows_of(model, first, last), _rows_of(model, changed, assessment.recent[1])


def _rows_of(model: str, first: date, last: date) -> list[Row]:
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    each = -(-MOST_TEXTS // len(days))
    return [row for day in days for row in some_rows(model, day, each).to_pylist()][:MOST_TEXTS]


def worth_labelling(rows: Sequence[Row], novelty: Sequence[float] | None = None, most: int = TO_LABEL) -> list[Row]:
    """The rows whose labels teach most: new texts of which the model is unsure, no two almost the same.

    Args:
        rows: with ``text`` and ``probability``, the model's own of its answer.
        novelty: (rows,) how new each text is, 0 to 1; None: not known, and then the least sure come first.
        most: how many.
    """
    texts = [str(row["text"]) for row in rows]
    if not texts:
        return []
    from sklearn.feature_extraction.text import TfidfVectorizer

    unsure = 1 - np.asarray([float(row["probability"] or 0) for row in rows])
    new = np.ones(len(rows)) if novelty is None else np.asarray(novelty, np.float64)
    worth = new * (0.1 + unsure)  # a new text of which the model is sure may be where it errs most
    try:
        vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4)).fit_transform(texts).tocsr()
    except ValueError:
        vectors = None
    chosen: list[int] = []
    for at in np.argsort(-worth, kind="stable"):
        if len(chosen) == most:
            break
        if vectors is None or not chosen or (vectors[int(at)] @ vectors[chosen].T).max() < ALIKE:
            chosen.append(int(at))
    return [rows[at] for at in chosen]


def as_csv(rows: Sequence[Row]) -> bytes:
    """Rows to be labelled, as a file that is uploaded when its column ``label`` is filled in."""
    content = io.StringIO()
    columns = ["text", "label", "predicted", "probability", "prediction_id"]
    writer = csv.DictWriter(content, columns, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        shown = {"predicted": row["label"], "probability": f"{row['probability']:.3f}", "prediction_id": row["id"]}
        writer.writerow({"text": row["text"], "label": ""} | shown)
    return content.getvalue().encode("utf-8-sig")
