"""The console's words in other languages: ``translations/<language>.json`` has each English sentence and its like.

Templates say ``t("Roll back to version {version}", version=7)``. What a catalogue lacks is shown in English.
"""

import json
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from babel.dates import format_date
from flask import request

FOLDER = Path(__file__).parent / "translations"
ENGLISH = "en"
DASH = "\N{EN DASH}"
SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))


class Words:
    """Says a sentence in one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._words = {} if language == ENGLISH else _read(language)

    def __call__(self, sentence: str, **values: Any) -> str:
        """The sentence, with values in its places."""
        said = self._words.get(sentence, sentence)
        return said.format(**values) if values else said

    def count(self, number: int, one: str, many: str) -> str:
        """A number with its noun: ``count(3, "{n} row", "{n} rows")``."""
        return self(one if number == 1 else many, n=self.number(number))

    def number(self, value: float, digits: int = 0) -> str:
        """A number as this language writes it."""
        text = f"{value:,.{digits}f}"
        return text.translate(str.maketrans(",.", ".,")) if self.language == "de" else text

    def value(self, value: float) -> str:
        """A measured value: at most four digits behind the point, and no noughts at its end."""
        whole, _, rest = f"{value:.4f}".partition(".")
        return self.number(value, len(rest.rstrip("0"))) if rest.strip("0") else self.number(int(whole))

    def size(self, size: int) -> str:
        """A file's size."""
        unit, step = next((one for one in SIZES if size >= one[1]), SIZES[-1])
        return f"{self.number(size / step, 0 if step == 1 else 1)} {unit}"

    def day(self, day: str) -> str:
        """A day, given as 2026-11-27, as this language writes it; what is no day as it is."""
        try:
            return str(format_date(date.fromisoformat(day), "medium", locale=self.language))
        except ValueError:
            return day

    def percent(self, share: float | None, digits: int = 1) -> str:
        """A share of one in percent; a dash if there is none."""
        return DASH if share is None else f"{self.number(100 * share, digits)} %"


@lru_cache
def languages() -> tuple[str, ...]:
    """English, and those that there is a catalogue of."""
    return (ENGLISH, *sorted(path.stem for path in FOLDER.glob("*.json")))


@lru_cache
def _read(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return found


def of_request() -> Words:
    """The language that the viewer's browser asks for, if there is a catalogue of it."""
    return Words(request.accept_languages.best_match(languages()) or ENGLISH)
