"""The SQL that is pushed down to the warehouse."""

from pathlib import Path

import jinja2

FOLDER = Path(__file__).parent
ORDERS = {
    "newest": "seen_at DESC, trust DESC",
    "majority": "votes DESC, seen_at DESC, trust DESC",
    "trusted": "trust DESC, seen_at DESC",
}
"""Which of a text's labels comes first, by the rule for contradictions."""


def settle(curated: str, rule: str) -> str:
    """The query that settles what becomes of the texts of a table, from all that was ever said of them."""
    template = jinja2.Template((FOLDER / "settle.sql").read_text())
    query: str = template.render(curated=curated, order=ORDERS[rule])
    return query
