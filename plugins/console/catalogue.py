"""The console's words in other languages: ``translations/<language>.json`` has each English sentence and its like.

Templates say ``t("Roll back to version {version}", version=7)``. What a catalogue lacks is shown in English.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import request

FOLDER = Path(__file__).parent / "translations"
ENGLISH = "en"
DASH = "\N{EN DASH}"


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
