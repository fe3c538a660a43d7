"""What the name of an uploaded file says: whether it is data at all, what kind, and what it will be called when whole.

Nothing heavy is imported here: the listener's sensor reads these names while its DAG file is parsed.
"""

import posixpath
import re
from urllib.parse import unquote

UNFINISHED_SUFFIXES = (".part", ".partial", ".tmp", ".filepart", ".crdownload", ".uploading", "._copying_")

DEBRIS = (
    r"(?:.*/)?(?:"
    r"[^/]*\.crc"  # Hadoop's check sums
    r"|_SUCCESS[^/]*|_committed_[^/]*|_started_[^/]*|_metadata|_common_metadata"  # Spark's and its like
    r"|_delta_log/.*|_temporary/.*"
    r"|[^/]*\$folder\$"  # folder markers
    r"|\.DS_Store|\._[^/]*|Thumbs\.db|desktop\.ini|\.gitkeep|\.keep"  # desktops and version control
    r"|\.~lock\.[^/]*|~\$[^/]*"  # office programs
    r")"
)
"""Regular expression of whole keys: what programs leave beside their data. Neither data nor rejected files."""

_DEBRIS = re.compile(DEBRIS, re.IGNORECASE)
_PARTITION = re.compile(r"^([^=/]+)=([^/]*)$")

FEEDBACK = "incoming/feedback/"
"""Where corrections of answers come in: people correct what is wrong, so they are no fair sample, and never judge."""

NO_PARTITION_VALUE = "__HIVE_DEFAULT_PARTITION__"


def is_debris(key: str) -> bool:
    """Whether an object is something that a program left beside its data, or a folder's marker."""
    return key.endswith("/") or _DEBRIS.fullmatch(key) is not None


def is_feedback(key: str) -> bool:
    """Whether a file, or the row that names it as its source, is of corrections of what a model has answered."""
    return key.startswith(FEEDBACK)


def has_unfinished_name(key: str) -> bool:
    """Whether the name says that its writer has not finished: ``x.csv.part``, ``.hidden``."""
    name = posixpath.basename(key).lower()
    return name.endswith(UNFINISHED_SUFFIXES) or name.startswith((".", "~"))


def finished_name(key: str) -> str:
    """The key as it will be called when its writer has finished: ``x.csv.tmp`` is ``x.csv``."""
    lowered = key.lower()
    for suffix in UNFINISHED_SUFFIXES:
        if lowered.endswith(suffix):
            return finished_name(key[: -len(suffix)])
    return key


def partitions(key: str) -> dict[str, str | None]:
    """The columns that stand in a key's folders, as Hive and Spark write them: ``label=billing/part-0.parquet``."""
    found = (_PARTITION.match(folder) for folder in key.split("/")[:-1])
    values = {match[1]: unquote(match[2]) for match in found if match}
    return {name: None if value == NO_PARTITION_VALUE else value for name, value in values.items()}
