"""The rules of ``preprocess_data``: which curated texts are left out, and which are mended, with a reason each.

Each rule can be switched off in the list of sources. Rows come part by part; only the signatures of texts, by which
near-duplicates are known, are kept from part to part.
"""

import re
import statistics
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

from xxhash import xxh3_64_intdigest

from include.datasets.checks import normalise
from include.ingestion.near_duplicates import NearDuplicates
from include.ingestion.sources import Quality

PLACEHOLDERS = frozenset(
    """n/a|na|n.a.|none|null|nil|nan|undefined|unknown|tbd|x|xx|xxx|test|asdf|[empty]|(empty)|#n/a|#ref!|#value!|no text
|not available|not applicable|no message|no content|lorem ipsum|leer|keine|kein text""".replace("\n", "").split("|")
)
SAMPLE = 5_000  # texts by which usual lengths are known
FEWEST_FOR_LENGTHS = 100
FAR_OUT = 4.0  # robust deviations
FEWEST_WORDS = 3
SHORTEST_FOR_LANGUAGE = 20  # characters: of shorter texts no library tells the language
SURE_OF_LANGUAGE = 0.98

_SIGNATURE = re.compile(
    r"(?im)^\s*(?:--\s*$|best regards|kind regards|warm regards|regards,|sincerely|yours truly|many thanks,?\s*$|"
    r"cheers,|mit freundlichen gr(?:ü|ue)(?:ß|ss)en|viele gr(?:ü|ue)(?:ß|ss)e|sent from my |get outlook for |"
    r"gesendet von |von meinem \w+ gesendet)"
)
_QUOTED = re.compile(
    r"(?im)^\s*(?:on .{5,120} wrote:|am .{5,120} schrieb.*:|-{2,}\s*(?:original message|forwarded message|"
    r"urspr(?:ü|ue)ngliche nachricht)\s*-{2,}|begin forwarded message:)"
)
_QUOTE_LINES = re.compile(r"(?m)^\s*>.*\n?")
_NOTICE = re.compile(
    r"(?is)(?:^|\n)\s*(?:(?:this|the information (?:in|contained in) this) (?:e-?mail|message|communication)\b"
    r"[^\n]{0,200}(?:confidential|privileged|intended (?:solely|only))"
    r"|diese (?:e-?mail|nachricht)[^\n]{0,120}vertraulich"
    r"|please consider the environment before printing|to unsubscribe\b|unsubscribe from this list"
    r"|you (?:are receiving|received) this (?:e-?mail|message) because|confidentiality notice).*"
)
_ONLY_AUTOMATIC = re.compile(
    r"(?is)\s*(?:(?:automatic reply|auto-?reply|out of office|abwesenheitsnotiz|automatische antwort)\b.*"
    r"|i am (?:currently )?out of (?:the )?office\b.*|(?:mail delivery failed|undeliverable|delivery status "
    r"notification)\b.*|do not reply to this (?:e-?mail|message)\b.{0,80})"
)


class Row(NamedTuple):
    """A curated text as it is read from and written to the warehouse."""

    text_hash: str
    text: str
    label: str
    source: str
    seen_at: str
    trust: int
    copies: int


class Broken(NamedTuple):
    """A text that is left out, and why."""

    row: Row
    rule: str
    reason: str


class Cleaner:
    """Applies the rules to one part of a week's rows after the other.

    Attributes:
        left_out: how many rows each rule has left out.
        mended: how many rows each rule has mended.
        renamed: hashes of mended texts, by those that they came with.
        examples: a few texts of each rule, before and after.
    """

    def __init__(self, quality: Quality, lengths: list[int]) -> None:
        """``lengths`` are those of a sample of the texts, in characters."""
        self.quality = quality
        self.left_out: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.renamed: dict[str, str] = {}
        self.examples: dict[str, list[tuple[str, str]]] = {}
        self.shortest, self.longest = usual_lengths(lengths) if quality.length else (0, 0)
        self.near = NearDuplicates(quality.similarity) if quality.near_duplicates else None

    def clean(self, rows: list[Row]) -> tuple[list[Row], list[Broken]]:
        """The rows that stay, in order, and those that are left out. What no rule mends comes back itself."""
        found = [self._mended(row) for row in rows]
        faults = [self._fault(mended.text) for mended in found]
        self._find_near_duplicates(found, faults)
        broken = []
        for row, fault in zip(rows, faults, strict=True):
            if fault:
                broken.append(self._left_out(row, *fault))
        return [one for one, fault in zip(found, faults, strict=True) if not fault], broken

    def leave_out(self, row: Row, other: str) -> Broken:
        """Notes that a row that stayed is almost a text of an earlier week."""
        return self._left_out(row, "across_weeks", f"almost the same as {other[:200]!r}, which came in an earlier week")

    def _left_out(self, row: Row, rule: str, reason: str) -> Broken:
        self.left_out[rule] += 1
        self._show(rule, row.text, reason)
        return Broken(row, rule, reason)

    def _find_near_duplicates(self, rows: list[Row], faults: list[tuple[str, str] | None]) -> None:
        """Adds to the faults those that a text has beside others."""
        if not self.near:
            return
        places = [place for place, fault in enumerate(faults) if not fault]
        others = self.near.seen((rows[place].text_hash, rows[place].text, rows[place].label) for place in places)
        for place, other in zip(places, others, strict=True):
            if other:
                faults[place] = "near_duplicate", f"almost the same as {other[:200]!r}"

    def _mended(self, row: Row) -> Row:
        text = self._mend(row.text)
        if text == row.text:
            return row
        self.renamed[row.text_hash] = hash_of(text)
        return row._replace(text=text, text_hash=self.renamed[row.text_hash])

    def _mend(self, text: str) -> str:
        for rule, mend in (("encoding", mend_encoding), ("boilerplate", without_boilerplate)):
            if getattr(self.quality, rule) and (better := mend(text)) != text:
                self.mended[rule] += 1
                self._show(f"{rule}: mended", text, better)
                text = better
        return text

    def _fault(self, text: str) -> tuple[str, str] | None:
        quality = self.quality
        if quality.boilerplate and (not text.strip() or _ONLY_AUTOMATIC.fullmatch(text)):
            return "boilerplate", "nothing but an automatic answer, a signature or a quoted message"
        if quality.missing and is_missing(text):
            return "missing", "a placeholder, or no word at all"
        if quality.length and self.longest and not self.shortest <= len(text) <= self.longest:
            return "length", f"{len(text)} characters, and usual are {self.shortest} to {self.longest}"
        if quality.languages and (language := other_language(text, quality.languages)):
            return "language", f"looks like {language!r}, and wanted are {', '.join(quality.languages)}"
        return None

    def _show(self, rule: str, before: str, after: str) -> None:
        shown = self.examples.setdefault(rule, [])
        if len(shown) < 3:
            shown.append((before[:300], after[:300]))


def hash_of(text: str) -> str:
    """A text's hash: of its normalised form, as the upload path's ``text_keys``."""
    return f"{xxh3_64_intdigest(normalise(text).encode()):016x}"


def is_missing(text: str) -> bool:
    """Whether a text says nothing: a placeholder, or signs without any letter or digit."""
    plain = normalise(text)
    return plain in PLACEHOLDERS or not any(unicodedata.category(character)[0] in "LN" for character in plain)


def mend_encoding(text: str) -> str:
    """A text that was decoded wrongly, as it was meant: ``fÃ¼r`` is ``für``. Others stay as they are."""
    import ftfy

    if text.isascii():
        return text
    # Nothing but mojibake: quotes, widths and ligatures are the writer's own.
    mended: str = ftfy.fix_encoding(text)
    return mended


def without_boilerplate(text: str) -> str:
    """A message without what mail programs and lawyers put below it; a text of one line stays as it is."""
    if "\n" not in text:
        return text
    shorter = _NOTICE.sub("", text)
    for pattern in (_QUOTED, _SIGNATURE):
        if (found := pattern.search(shorter)) and shorter[: found.start()].strip():
            shorter = shorter[: found.start()]
    shorter = _QUOTE_LINES.sub("", shorter)
    return shorter.strip() if shorter != text else text


def usual_lengths(lengths: list[int]) -> tuple[int, int]:
    """The shortest and longest usual length, from the logarithms' median and deviation; (0, 0) if too few are known."""
    import math

    if len(lengths) < FEWEST_FOR_LENGTHS:
        return 0, 0
    logs = [math.log(length + 1) for length in lengths]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(one - middle) for one in logs)
    spread = max(spread, 0.25)  # texts that are all as long as each other
    return math.floor(math.exp(middle - FAR_OUT * spread)) - 1, math.ceil(math.exp(middle + FAR_OUT * spread))


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)


def other_language(text: str, wanted: tuple[str, ...]) -> str:
    """The language of a text if that is surely none of those wanted; empty if it is, or if nobody can tell."""
    language = language_of(text)
    return language if language not in wanted else ""


def language_of(text: str) -> str:
    """The language of a text, as ISO 639-1; empty if nobody can tell for sure."""
    # Word by word: one pattern for all would look at a text without blanks as often as it has characters.
    words = re.sub(r"[^\w\s]", " ", " ".join(word for word in text.split() if not re.search(r"[@/\d]", word)))
    plain = [word for word in words.split() if not word[0].isupper()]  # names are of any language
    words = " ".join(plain) if len(plain) >= FEWEST_WORDS else words
    if len(words.strip()) < SHORTEST_FOR_LANGUAGE:
        return ""
    language, probability = _identifier().classify(words)
    return str(language) if probability >= SURE_OF_LANGUAGE else ""
