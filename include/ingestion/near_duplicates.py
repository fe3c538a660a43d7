"""Texts that are almost the same, by MinHash: those of a week among themselves, and beside those of earlier weeks.

A text's signature is cut into bands, of each of which a number is kept: two texts with such a number in common are
compared letter by letter. A signature takes four bytes for each band.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from include.datasets.checks import normalise

if TYPE_CHECKING:
    import numpy as np

SHINGLE_CHARACTERS = 5
PERMUTATIONS = 128
TEXTS_AT_ONCE = 2_000
SURE = 0.99  # of finding two texts that are as similar as it takes
SHORTEST = 2 * SHINGLE_CHARACTERS  # normalised characters; shorter texts have too few pieces to compare


class Known(NamedTuple):
    """A text that stays; ``plain`` is its normalised form."""

    text_hash: str
    plain: str
    label: str


def band_rows(similarity: float) -> int:
    """How many of a signature's numbers make a band: the more, the fewer texts are compared for nothing."""
    for rows in (8, 4, 2):
        if 1 - (1 - similarity**rows) ** (PERMUTATIONS // rows) >= SURE:
            return rows
    return 1


def band_keys(plain: Sequence[str], rows: int) -> "np.ndarray[Any, Any]":
    """(n,) normalised texts in, (n, bands) uint32 out. Texts shorter than SHORTEST have no meaningful keys."""
    import numpy as np
    from rensa import RMinHash

    bands = PERMUTATIONS // rows
    if not plain:
        return np.empty((0, bands), np.uint32)
    if len(plain) > TEXTS_AT_ONCE:  # their signatures are Python's numbers for a moment
        starts = range(0, len(plain), TEXTS_AT_ONCE)
        return np.concatenate([band_keys(plain[start : start + TEXTS_AT_ONCE], rows) for start in starts])
    codes = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in plain])
    pieces = np.maximum(lengths - SHINGLE_CHARACTERS + 1, 0)
    hashes = np.zeros(max(len(codes) - SHINGLE_CHARACTERS + 1, 0), np.uint64)
    for place in range(SHINGLE_CHARACTERS):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[place : place + len(hashes)] + np.uint64(1)
    offsets = np.concatenate(([0], np.cumsum(pieces)))
    ends = np.cumsum(lengths)
    # Pieces that reach from one text into the next are left away.
    inside = np.repeat(ends - lengths, pieces) + np.arange(offsets[-1]) - np.repeat(offsets[:-1], pieces)
    tokens = _mixed(hashes[inside])
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(tokens, offsets.astype(np.uint64), PERMUTATIONS, 42)
    digests = np.array(matrix.to_rows(), np.uint64).reshape(len(plain), bands, rows)
    keys = np.zeros((len(plain), bands), np.uint64)
    for place in range(rows):
        keys = _mixed(keys ^ digests[:, :, place] + np.uint64(place))
    return (keys >> np.uint64(32)).astype(np.uint32)


def _mixed(numbers: Any) -> Any:
    """Numbers of which each bit depends on all (splitmix64)."""
    import numpy as np

    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class NearDuplicates:
    """Knows the texts that it has seen; one that is almost one of them, with the same label, is told."""

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self.rows = band_rows(similarity)
        self.known: list[Known] = []
        self._places: list[dict[int, list[int]]] = [{} for _ in range(PERMUTATIONS // self.rows)]

    def seen(self, texts: Iterable[tuple[str, str, str]]) -> list[str]:
        """Of each text, given as hash, text and label: one seen before that it almost is, or empty.

        Those of which there is none are known from now on.
        """
        found = [Known(text_hash, normalise(text), label) for text_hash, text, label in texts]
        keys = band_keys([one.plain for one in found], self.rows).tolist()
        return [
            self._seen(one, its) if len(one.plain) >= SHORTEST else "" for one, its in zip(found, keys, strict=True)
        ]

    def _seen(self, text: Known, keys: list[int]) -> str:
        bands = list(zip(self._places, keys, strict=True))
        for place in dict.fromkeys(place for band, key in bands for place in band.get(key, ())):
            if self.alike(self.known[place], text):
                return self.known[place].plain
        for band, key in bands:
            band.setdefault(key, []).append(len(self.known))
        self.known.append(text)
        return ""

    def alike(self, one: Known, other: Known) -> bool:
        """Whether two texts are almost the same, and say the same."""
        # A contradiction is the merge's to settle, and numbers make different questions of the same words.
        return (
            one.label == other.label
            and _numbers(one.plain) == _numbers(other.plain)
            and _share(one.plain, other.plain) >= self.similarity
        )

    def candidates(self, keys: "np.ndarray[Any, Any]") -> list[tuple[int, int]]:
        """(n, bands) of other texts in; which of them may be almost which of the known ones, as pairs of places."""
        import numpy as np

        found: dict[tuple[int, int], None] = {}
        for at, band in enumerate(self._places):
            if band:
                column = keys[:, at]
                for place in np.flatnonzero(np.isin(column, np.fromiter(band, np.uint32, len(band)))).tolist():
                    found.update(dict.fromkeys((place, one) for one in band[int(column[place])]))
        return list(found)


def _shingles(plain: str) -> set[str]:
    return {plain[at : at + SHINGLE_CHARACTERS] for at in range(max(1, len(plain) - SHINGLE_CHARACTERS + 1))}


def _numbers(plain: str) -> list[str]:
    return re.findall(r"\d+", plain)


def _share(one: str, other: str) -> float:
    """The share of short pieces that two texts have in common."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / len(first | second)
