"""The SQL that is pushed down to the warehouse, or to Spark."""

from pathlib import Path
from typing import Any

import jinja2

FOLDER = Path(__file__).parent
COLUMNS = ("text_hash", "text", "label", "source", "first_seen", "last_seen", "label_version")
"""Of ``training_examples``, those that a merge writes."""
ORDERS = {
    "newest": "seen_at DESC, trust DESC",
    "majority": "votes DESC, seen_at DESC, trust DESC",
    "trusted": "trust DESC, seen_at DESC",
}
"""Which of a text's labels comes first, by the rule for contradictions."""
RAW = ("text_hash", "text", "label", "source", "seen_at", "trust")
"""Of the rows that were read, the columns that the warehouse gets."""
BYTEWISE = 'COLLATE "C"'
"""How PostgreSQL is told to sort by bytes: by a language's rules it takes several times as long."""


def transform(raw: str) -> str:
    """The query that makes one row of the same text, label, source and time."""
    return _rendered("transform.sql", raw=raw)


def enter(curated: str, sightings: str = "example_sightings", bytewise: str = "") -> str:
    """The query for what a table says of its texts that has not been entered; sorted in the order ``bytewise``."""
    return _rendered("enter.sql", curated=curated, sightings=sightings, bytewise=bytewise)


def settle(curated: str, rule: str, bytewise: str = "") -> str:
    """The query that settles what becomes of the texts of a table, from all that was ever said of them."""
    votes = "votes" in ORDERS[rule]
    return _rendered("settle.sql", curated=curated, order=ORDERS[rule], votes=votes, bytewise=bytewise)


def _rendered(name: str, **values: Any) -> str:
    return str(jinja2.Template((FOLDER / name).read_text()).render(**values))
