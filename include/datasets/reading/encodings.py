"""Brings a text file into UTF-8, whatever program wrote it."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from include.datasets.reading.table import UnreadableFileError

BLOCK = 4 << 20  # bytes
SAMPLE = 64 << 10  # bytes around odd ones, which tell Windows from Mac

_BOMS = (  # UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_ODD = re.compile(rb"[\x80-\xff]+")
_AROUND = 16  # bytes
# A capital with an accent and a closing quote in Windows-1252, or an opening quote and an accent in Mac Roman, may
# happen to be one letter in UTF-8. It is one if it is usual in Latin script, or stands beside another such letter.
_USUAL_IN_UTF8 = set("ąćčďđęěğıłńňőřśşšţťůűźżžœșțμβδλπΩΔ") | set("ĄĆČĎĐĘĚĞŁŃŇŐŘŚŞŠŤŮŰŹŻŽŒȘȚ")
_ALMOST_ALL = 0.9
_ASCII = bytes(range(128))
_WRITTEN = b"\t\n\v\f\r\x1b" + bytes(range(32, 256))  # all but control characters
_WORDS = set("àèéóôåÀÈÉÓÅ")  # that are one letter

_SUFFIX = re.compile(r"(?:s|t|ll|re|ve|m|d)\b", re.IGNORECASE)  # of an English word, behind an apostrophe
_EIGHT_BITS = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman"}
_USUAL = set("àâäáãåæçèéêëìíîïñòóôöõøùúûüýÿßœ") | set("àâäáãåæçèéêëìíîïñòóôöõøùúûüýœ".upper())
_APOSTROPHES = set("\u2018\u2019\u201c\u201d")
_OUTSIDE_WORDS = _APOSTROPHES | set("„«»…\u2013—€£§°•·¿¡©®™\xa0½¼²³")


def to_utf8(path: Path, folder: Path) -> tuple[Path, list[str]]:
    """The file as UTF-8 without a byte order mark, and warnings; a new file in ``folder`` unless it is that already.

    By its byte order mark, or by where its zeros stand, it is UTF-16 or UTF-32. What is valid UTF-8 is UTF-8; with at
    least one valid sequence of several bytes it is UTF-8 too, and its invalid bytes stay for their rows to be rejected.
    What has none is Windows-1252 or Mac Roman, whichever gives the likelier text, and a warning says which. Raises
    UnreadableFileError if the content is binary.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return _transcode(path, folder, encoding, skip=len(bom)), []
    if wide := _by_zeros(head):
        return _transcode(path, folder, wide), []
    if len(head.translate(None, _WRITTEN)) > len(head) // 100:
        raise UnreadableFileError("the content is binary, not text; save it as CSV, JSONL, Parquet or .xlsx")
    odd = _odd_if_not_utf8(path)
    if odd is None:
        return path, []
    likeliest = max(_EIGHT_BITS, key=lambda name: _likelihood(odd, name))  # the first if they are equal
    warning = (
        f"the file is not UTF-8 and was read as {_EIGHT_BITS[likeliest]}: look at its accents, and save it as UTF-8 "
        "next time"
    )
    return _transcode(path, folder, likeliest), [warning]


def _by_zeros(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: Western text has zeros at every second byte, or at three of four."""
    if len(head) < 8 or b"\x00" not in head:
        return None
    zeros = [head[at::4].count(0) / max(1, len(head[at::4])) for at in range(4)]
    patterns = {
        "utf-32-le": (False, True, True, True), "utf-32-be": (True, True, True, False),
        "utf-16-le": (False, True, False, True), "utf-16-be": (True, False, True, False),
    }  # fmt: skip
    for encoding, pattern in patterns.items():
        if all((share > 0.6) if zero else (share < 0.3) for share, zero in zip(zeros, pattern, strict=True)):
            return encoding
    return None


def _blocks(path: Path, skip: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(skip)
        while block := file.read(BLOCK):
            yield block


def _odd_if_not_utf8(path: Path) -> bytes | None:
    """None if the file is UTF-8, with some bad bytes perhaps; else a sample of what is not ASCII in it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    valid, odd, before = True, bytearray(), b""
    in_sequences, beyond_ascii = 0, 0
    for block in _blocks(path):
        if block.isascii() and not before:
            continue
        whole = before + block
        end = -1
        for match in _MULTIBYTE.finditer(whole):
            if _is_meant(match[0]) or match.start() == end:
                return None
            end = match.end()
            in_sequences += len(match[0])
        beyond_ascii += len(block.translate(None, _ASCII))
        if valid:
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                valid = False
        if len(odd) < SAMPLE:
            for match in _ODD.finditer(whole):
                odd += whole[max(0, match.start() - _AROUND) : match.end() + _AROUND] + b"\n"
                if len(odd) >= SAMPLE:
                    break
        before = b"" if block[-3:].isascii() else block[-3:]
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        valid = False
    return None if valid or in_sequences > _ALMOST_ALL * beyond_ascii else bytes(odd)


def _is_meant(sequence: bytes) -> bool:
    """Whether a valid sequence, alone among ASCII, is a letter that somebody meant to write in UTF-8."""
    if len(sequence) == 2:
        return sequence[0] in (0xC2, 0xC3) or sequence.decode("utf-8") in _USUAL_IN_UTF8
    return len(sequence) == 4 or sequence[0] in (0xE2, 0xEF)


def _likelihood(odd: bytes, encoding: str) -> float:
    """How much a text looks like one that somebody wrote: accents inside words, signs outside of them."""
    text = odd.decode(encoding, "replace")
    return sum(_fit(text, at) for at, character in enumerate(text) if not character.isascii())


def _fit(text: str, at: int) -> float:
    """How well a character that is not ASCII fits where it stands."""
    character = text[at]
    before, after = text[at - 1] if at else " ", text[at + 1] if at + 1 < len(text) else " "
    within = before.isalpha() and after.isalpha()
    if character == "\ufffd":
        return -5
    if character in _USUAL:
        wrong_case = (
            before.islower() or (after.islower() and before.isalpha())
            if character.isupper()
            else before.isupper() and (after.isupper() or not after.isalpha()) and text[at - 2 : at - 1].isupper()
        )
        alone = not before.isalpha() and not after.isalpha() and character not in _WORDS
        # A capital opens a word, but not one that goes on in capitals: ÒNo, but ÉTÉ.
        doubtful = character.isupper() and not before.isalpha() and after.isupper() and text[at + 2 : at + 3].islower()
        return -1 if wrong_case or alone or doubtful or before.isdigit() else 1
    if character in _APOSTROPHES:
        if within:
            return 1.1 if _SUFFIX.match(text, at + 1) else 0.9
        opens = character in "\u2018\u201c"
        return (
            1.1 if (after.isalpha() and opens) or (not opens and not after.isalpha() and not before.isspace()) else 0.5
        )
    if character in "\u2013\u2014":
        return 1.1 if within or before == after == " " else 0.5
    if character in "…™®":
        return 1.1 if before.isalnum() and not after.isalpha() else 0.3
    if within:
        return -0.2 if character.isalpha() else -1
    return 0.9 if character in _OUTSIDE_WORDS else -0.3


def _transcode(path: Path, folder: Path, encoding: str, skip: int = 0) -> Path:
    """The file in UTF-8. A byte that the encoding does not have stays as it is, for its row to be rejected."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding == "cp1252" else "replace")
    if encoding == "utf-8":
        decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    target = folder / "utf8"
    with target.open("wb") as file:
        for block in _blocks(path, skip):
            file.write(decoder.decode(block).encode("utf-8", "surrogateescape"))
        file.write(decoder.decode(b"", final=True).encode("utf-8", "surrogateescape"))
    return target
