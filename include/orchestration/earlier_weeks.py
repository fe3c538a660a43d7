"""Which of a week's texts are almost one of an earlier week.

The warehouse keeps the signature of each curated text, a line of hexadecimal digits in ``example_signatures``. They are
made when they are first asked for: texts of before, or of weeks in which the rule was off, are taken in by the next.
"""
# Only imported inside tasks.

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np  # noqa: TID253 - the module is imported inside tasks
import pyarrow as pa
import sqlalchemy as sa

from include.datasets.checks import normalise
from include.ingestion.near_duplicates import SHORTEST, Known, NearDuplicates, band_keys
from include.orchestration import copying, curating
from include.orchestration.warehouse import warehouse

SIGNATURES = sa.Table(
    "example_signatures",
    sa.MetaData(),
    sa.Column("text_hash", sa.Text(collation="C"), primary_key=True),
    sa.Column("band_rows", sa.Integer, primary_key=True, autoincrement=False),  # another similarity, another signature
    sa.Column("bands", sa.Text, nullable=False),
)
KEY_DIGITS = 8
HASHES_AT_ONCE = 1_000


def almost_known(near: NearDuplicates, week: str, new: str) -> dict[int, Known]:
    """Of the texts that ``near`` knows, by their place: the one that was first seen before the week and is almost it.

    ``new`` is the name of a table for the signatures that are made here.
    """
    curating.create_tables()
    SIGNATURES.create(warehouse(), checkfirst=True)
    monday = date.fromisocalendar(int(week[:4]), int(week[-2:]), 1).isoformat()
    _sign(near.rows, new)
    pairs = list(_pairs(near, monday))
    others = _texts({other for other, _ in pairs}, monday)
    # A text that is known as it is stays: it is seen once more.
    same = _texts({near.known[place].text_hash for _, place in pairs}, monday)
    found: dict[int, Known] = {}
    for other_hash, place in pairs:
        one, other = near.known[place], others.get(other_hash)
        if other and one.text_hash not in same and place not in found and near.alike(one, other):
            found[place] = other
    return found


def _pairs(near: NearDuplicates, monday: str) -> Iterator[tuple[str, int]]:
    query = (
        "SELECT signature.text_hash, signature.bands FROM example_signatures AS signature "
        "JOIN training_examples AS example ON example.text_hash = signature.text_hash "
        f"WHERE signature.band_rows = {near.rows} AND example.first_seen < '{monday}'"
    )
    for part in copying.rows_of(query, pa.schema([("text_hash", pa.string()), ("bands", pa.string())])):
        digits = bytes.fromhex("".join(part["bands"].to_pylist()))
        keys = np.frombuffer(digits, ">u4").astype(np.uint32).reshape(len(part), -1)
        for at, place in near.candidates(keys):
            yield part["text_hash"][at].as_py(), place


def _sign(rows: int, new: str) -> None:
    """Makes the signatures of texts that have none yet."""
    missing = (
        "SELECT text_hash, text FROM training_examples AS example WHERE NOT EXISTS (SELECT 1 FROM example_signatures "
        f"AS signature WHERE signature.text_hash = example.text_hash AND signature.band_rows = {rows})"
    )
    schema = pa.schema([("text_hash", pa.string()), ("bands", pa.string())])
    texts = copying.rows_of(missing, pa.schema([("text_hash", pa.string()), ("text", pa.string())]))
    curating.write_table(new, schema, (_signed(part, rows, schema) for part in texts))
    with warehouse().begin() as connection:
        enter = (
            f"INSERT INTO example_signatures (text_hash, band_rows, bands) SELECT text_hash, {rows}, bands "
            f'FROM "{new}" ORDER BY text_hash ON CONFLICT DO NOTHING'
        )
        connection.execute(sa.text(enter))
        connection.execute(sa.text(f'DROP TABLE "{new}"'))


def _signed(part: pa.RecordBatch, rows: int, schema: pa.Schema) -> pa.Table:
    plain = [normalise(text) for text in part["text"].to_pylist()]
    keys = band_keys(plain, rows)
    digits = keys.astype(">u4").tobytes().hex()
    width = KEY_DIGITS * keys.shape[1]
    lines = [digits[at : at + width] for at in range(0, len(digits), width)]
    long = pa.array([len(text) >= SHORTEST for text in plain])
    return pa.table([part["text_hash"], pa.array(lines, pa.string())], schema=schema).filter(long)


def _texts(hashes: set[str], monday: str) -> dict[str, Known]:
    """Those of the texts that were first seen before a day."""
    known = curating.EXAMPLES.c
    ordered, found = sorted(hashes), {}
    with warehouse().connect() as connection:
        for start in range(0, len(ordered), HASHES_AT_ONCE):
            wanted = known.text_hash.in_(ordered[start : start + HASHES_AT_ONCE])
            query = sa.select(known.text_hash, known.text, known.label).where(wanted, known.first_seen < monday)
            for row in connection.execute(query):
                found[row.text_hash] = Known(row.text_hash, normalise(row.text), row.label)
    return found


def leave_out(curated: str, texts: list[tuple[str, str]], new: str) -> list[dict[str, Any]]:
    """Takes texts, given as hash and label, out of a run's table; returns its rows of them."""
    schema = pa.schema([("text_hash", pa.string()), ("label", pa.string())])
    gone = [dict(zip(schema.names, text, strict=True)) for text in texts]
    curating.write_table(new, schema, [pa.Table.from_pylist(gone, schema)])
    columns = ", ".join(f"kept.{name}" for name in curating.CURATED)
    with warehouse().begin() as connection:
        delete = (
            f'DELETE FROM "{curated}" AS kept USING "{new}" AS gone WHERE kept.text_hash = gone.text_hash '
            f"AND kept.label = gone.label RETURNING {columns}"
        )
        rows = [dict(row) for row in connection.execute(sa.text(delete)).mappings()]
        connection.execute(sa.text(f'DROP TABLE "{new}"'))
    return rows
