"""Labels as people write them, and what they mean: one spelling per meaning, and what is no single label.

A label is first brought into one line of text (``written``), row by row. What that text means (``Vocabulary``) is only
known once all labels are: ``billing|urgent`` is two labels if another row says ``billing``, and one if none does.
"""

import ast
import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

PLACEHOLDERS = frozenset({"", "nan", "<na>", "null", "n/a", "#n/a", "-"})
"""Whatever their case, they stand for "no label"."""

DOUBTFUL = frozenset({"none", "na"})
"""They are labels, but may be meant as "no label"."""

NOT_COUNTED = frozenset({"discarded", "draft", "pending"})
"""States of an annotator's answer in which it does not count."""

SHORTEST = 3  # characters; shorter words differ by a letter because they are different words

_INVISIBLE = re.compile("[\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_WHOLE = re.compile(r"-?(?:0|[1-9]\d*)\.0*")
_SEPARATOR = re.compile(r"\||(?<!&amp)(?<!&lt)(?<!&gt)(?<!&quot)(?<!&#39);")  # R&amp;D is one label
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_BOOLEANS = {"true", "false"}


@dataclass(frozen=True)
class Meaning:
    """What a label as written means: the label, or the rule that it breaks and why; ``was`` is its name before."""

    label: str
    rule: str = ""
    reason: str = ""
    was: str = ""


def written(value: Any) -> str | Meaning:
    """A label of any type as one line of text: 1, 1.0 and "1" are written alike. A list of one element is that one."""
    if value is None or value != value:  # NaN, NaT
        return ""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, int | float | Decimal | date):
        return str(value)
    if isinstance(value, list | tuple | set):
        return _of_list(list(value))
    if isinstance(value, dict):
        return _of_object(value)
    return Meaning(str(value), "label_not_a_value", f"the label is a {type(value).__name__}")


def _of_list(values: list[Any]) -> str | Meaning:
    if values and all(isinstance(one, dict) and "value" in one and "status" in one for one in values):  # Argilla's
        answers = [one["value"] for one in values if str(one["status"]).lower() not in NOT_COUNTED]
        if not answers:
            return Meaning("", "label_missing", "no answer was submitted")
        values = answers[:1] if all(answer == answers[0] for answer in answers) else answers
    if len(values) != 1:
        return Meaning(str(values), "label_not_single", f"the label is a list of {len(values)}; a text has one label")
    return written(values[0])


def _of_object(value: dict[Any, Any]) -> str | Meaning:
    """A choice or a rating of Label Studio's, a label with its id, or categories with yes or no."""
    for name in ("choices", "taxonomy"):
        if isinstance(value.get(name), list):
            return _of_list([one[-1] if isinstance(one, list) and one else one for one in value[name]])
    if "start" in value and "end" in value:
        return Meaning(str(value), "label_not_a_value", "the label is a part of the text; a text has one label")
    for name in ("label", "value", "name", "text", "rating", "number"):
        if isinstance(value.get(name), str | int | float):
            return written(value[name])
    if value and all(isinstance(one, int | float) and 0 <= one <= 1 for one in value.values()):
        chosen = [name for name, one in value.items() if one >= 0.5]
        return _of_list(chosen) if chosen else Meaning("", "label_missing", "no category is chosen")
    return Meaning(str(value), "label_not_a_value", f"the label is an object with {', '.join(map(str, value))[:80]}")


def canonical(text: str) -> str:
    """The one spelling of a label: composed, without invisible characters and outer quotes; 1.0 is 1, TRUE is true."""
    if not text.isascii():
        text = " ".join(unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).split())
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1].strip(text[0]):
        text = text[1:-1].strip()
    if _WHOLE.fullmatch(text):
        text = text.split(".")[0]
        return "0" if text == "-0" else text
    return text.lower() if text.lower() in _BOOLEANS else text


class Vocabulary:
    """What each label of an intake means.

    ``labels`` are all labels as written, each once. ``allowed`` are the model's, or None if it has none yet; whatever
    is written there is a label, in that spelling. Others are labels too if it is ``open``. ``mapping`` has old names of
    labels, and the new ones that they mean.
    """

    def __init__(
        self,
        labels: Iterable[str],
        allowed: Collection[str] | None,
        *,
        open: bool = False,
        mapping: Mapping[str, str] | None = None,
    ) -> None:
        self.allowed = None if open else allowed
        mapping = mapping or {}
        if self.allowed is not None:
            mapping = {old: new for old, new in mapping.items() if new in self.allowed}
        known = {label: Meaning(label) for label in [*mapping.values(), *(allowed or ())]}
        known |= {old: Meaning(new, was=old) for old, new in mapping.items()}
        self._spelling = {canonical(label): meaning for label, meaning in known.items()} | known
        self.texts = list(dict.fromkeys(labels))
        self._single = {label for text in self.texts for label in self._alone(text)} | set(self._spelling)
        self._minus_one_is_none = not any(
            _NUMBER.fullmatch(label) and not label.isdigit() for label in self._single if label != "-1"
        )
        self.meanings = {text: self._meaning(text) for text in self.texts}

    def _meaning(self, text: str) -> Meaning:
        if text in self._spelling:
            return self._spelling[text]
        label = canonical(text)
        if label in self._spelling:
            return self._spelling[label]
        if label.casefold() in PLACEHOLDERS:
            shown = f"{label!r} stands for no label (name it in BERT_LABELS if it is one)" if label else "it is blank"
            return Meaning("", "label_missing", shown)
        if label == "-1" and self._minus_one_is_none:
            return Meaning("", "label_missing", "-1 stands for no label (name it in BERT_LABELS if it is one)")
        parts = self._parts(label)
        if parts is not None:
            return self._of_parts(parts, text)
        if self.allowed is not None:
            known = f"is not one of the model's {len(self.allowed)} (BERT_LABELS can widen them)"
            return Meaning(label, "label_unknown", f"label {label[:80]!r} {known}")
        return Meaning(label)

    def _of_parts(self, parts: list[Any], text: str) -> Meaning:
        if len(parts) != 1:
            return Meaning(text, "label_not_single", f"{text[:80]!r} is {len(parts)} labels; a text has one label")
        only = written(parts[0])
        return only if isinstance(only, Meaning) else self._meaning(only)

    def _alone(self, text: str) -> list[str]:
        """The label that a text is by itself; nothing if it may be several, or none."""
        label = canonical(text)
        if label.casefold() in PLACEHOLDERS:
            return []
        elements = _elements(label)
        if elements is not None:
            only = written(elements[0]) if len(elements) == 1 else ""
            return [canonical(only)] if isinstance(only, str) and only else []
        return [label] if len(_joined(label)) < 2 else []

    def _parts(self, label: str) -> list[Any] | None:
        """The labels that a text lists, in one of the ways in which lists get into cells; None if it is no list."""
        elements = _elements(label)
        if elements is not None:
            return elements
        if label.startswith("[") and label.endswith("]"):  # [a, b] or NumPy's [0 1]
            for separator in (",", None):
                bare = [canonical(part.strip()) for part in label[1:-1].split(separator)]
                if any(part in self._single for part in bare):
                    return bare
        joined = _joined(label)
        return joined if len(joined) > 1 and any(part in self._single for part in joined) else None


def _elements(label: str) -> list[Any] | None:
    """The elements of a list that was written as JSON or by Python; of Label Studio's choices too."""
    if not (label.startswith("[") and label.endswith("]")) and not (label.startswith("{") and label.endswith("}")):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(label)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            return list(value["choices"])
        return value if isinstance(value, list) else None
    return None


def _joined(label: str) -> list[str]:
    return [part for piece in _SEPARATOR.split(label) if (part := canonical(piece.strip()))]


def lookalikes(labels: Collection[str]) -> list[tuple[str, str]]:
    """Pairs that differ by case, or by one letter: likely one label in two spellings. Numbers count as different."""
    found: dict[tuple[str, str], None] = {}
    by_form: dict[str, list[str]] = {}
    for label in sorted(labels):
        folded = label.casefold()
        forms = {folded} | {folded[:at] + "\0" + folded[at + 1 :] for at in range(len(folded)) if _may_vary(folded, at)}
        forms |= {folded[:at] + "\0" + folded[at:] for at in range(len(folded) + 1) if len(folded) >= SHORTEST}
        for form in forms:
            for other in by_form.setdefault(form, []):
                if other != label:
                    found[(other, label)] = None
            by_form[form].append(label)
    return list(found)


def _may_vary(label: str, at: int) -> bool:
    return len(label) >= SHORTEST and not label[at].isdigit()


def doubtful(counts: Mapping[str, int]) -> list[str]:
    """Warnings about labels that may be meant as "no label"."""
    found = {label: n for label, n in counts.items() if label.casefold() in DOUBTFUL}
    return [
        f'"{label}" ({n:,} rows) was taken for a label; if it means that there is none, leave its cells empty'
        for label, n in found.items()
    ]
