"""What kind of file an upload is, by its name and its first bytes, and what is inside if it is compressed."""

import gzip
import posixpath
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from include.datasets.names import finished_name
from include.datasets.reading.table import UnreadableFileError

COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
KINDS = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet", ".xlsx": "xlsx",
}  # fmt: skip
READ = ".csv, .tsv, .jsonl, .ndjson, .json, .parquet and .xlsx files, also as .gz or .zst,"

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}

# What people upload by mistake, by its first bytes, and what to do instead.
_MISTAKEN = {
    b"%PDF": "a PDF", b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file (save it as .xlsx or CSV)", b"{\\rtf": "a Word text",
    b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7-Zip archive", b"SQLite format 3": "an SQLite database",
    b"\xfd7zXZ": "xz-compressed (use .gz or .zst)", b"ARROW1": "an Arrow file (save it as Parquet)",
}  # fmt: skip

_CHUNK = 1 << 20


def kind_of(key: str) -> str:
    """csv, json, parquet or xlsx, by the name. Raises UnreadableFileError if it is none of them."""
    suffix = _suffixes(key)[0]
    if suffix not in KINDS:
        shown = f"this one ends in {suffix}" if suffix else "this one's name has no ending"
        raise UnreadableFileError(f"only {READ} are read, and {shown}; name it after what it is")
    return KINDS[suffix]


def unpacked(path: Path, key: str, folder: Path, limit: int) -> Path:
    """The file itself, or in ``folder`` what is compressed in it: at most ``limit`` bytes.

    It is recognised by its first bytes: S3 clients compress without a word, and browsers unpack. Raises
    UnreadableFileError if it is empty, unpacks to more, or is broken.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise UnreadableFileError("the file is empty")
    compression = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if compression is None:
        return path
    target = folder / "unpacked"
    try:
        with _opened(path, compression) as source, target.open("wb") as file:
            _copy(source, file, limit, compression)
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pyarrow's errors are OSError or ValueError
        if isinstance(error, UnreadableFileError):
            raise
        raise UnreadableFileError(f"the file is {compression}-compressed and broken: {error}") from error
    if not target.stat().st_size:
        raise UnreadableFileError("the file is empty, once it is unpacked")
    return target


def _opened(path: Path, compression: str) -> BinaryIO:
    """The unpacked content. Python's gzip, because it takes files of several parts, and zeros behind them."""
    if compression == "gzip":
        return cast("BinaryIO", gzip.open(path, "rb"))
    import pyarrow as pa

    return cast("BinaryIO", pa.CompressedInputStream(pa.OSFile(str(path)), compression))


def check_content(path: Path, key: str, kind: str) -> None:
    """Raises UnreadableFileError if the first bytes say that the content is something else than its name does."""
    with path.open("rb") as file:
        head = file.read(16)
    content = next((what for magic, what in _MISTAKEN.items() if head.startswith(magic)), None)
    if head.startswith(b"PK\x03\x04") and kind != "xlsx":
        content = "a zip archive or an Excel workbook (unpack it, or name it .xlsx)"
    if head.startswith(b"PAR1") and kind != "parquet":
        content = "a Parquet file (name it .parquet)"
    if content:
        raise UnreadableFileError(f"the name ends in {''.join(_suffixes(key))}, but the content is {content}")


def _suffixes(key: str) -> tuple[str, str]:
    """The ending that says what a file is, and the one of a compression or nothing."""
    stem, suffix = posixpath.splitext(posixpath.basename(finished_name(key)))
    if suffix.lower() in COMPRESSIONS:
        return posixpath.splitext(stem)[1].lower(), suffix.lower()
    return suffix.lower(), ""


def _copy(source: BinaryIO, target: BinaryIO, limit: int, compression: str) -> None:
    left = limit
    while block := source.read(_CHUNK):
        left -= len(block)
        if left < 0:
            raise UnreadableFileError(
                f"the file is {compression}-compressed and unpacks to more than {limit / 2**30:.3g} GiB "
                "(BERT_MAX_UNPACKED_GIB); split it"
            )
        target.write(block)
