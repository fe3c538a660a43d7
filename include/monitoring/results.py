"""The table ``monitoring_results``: each check of each day, to be plotted over months.

A day that is checked again replaces its own rows, and checks the same data to the same rows.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine

from include.monitoring.checks import Check
from include.registry import ledger

RESULTS = sa.Table(
    "monitoring_results",
    sa.MetaData(),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("check", sa.Text, primary_key=True),
    sa.Column("value", sa.Float),
    sa.Column("threshold", sa.Float),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("told", sa.Text, nullable=False),
)


def ensure(engine: Engine) -> None:
    """Makes the table if it is not there; two at once do not collide."""
    with ledger.exclusive(engine, RESULTS.name) as connection:
        RESULTS.create(connection, checkfirst=True)


def enter(engine: Engine, model: str, day: date, checks: Iterable[Check], *, anew: bool = False) -> None:
    """Enters a day's checks, in place of what was entered of the same ones; ``anew`` of all of the day's."""
    rows = [
        {"day": day, "model": model, "check": one.name, **one.model_dump(exclude={"name"})}
        for one in {check.name: check for check in checks}.values()
    ]
    ensure(engine)
    if not rows:
        return
    statement = insert(RESULTS).values(rows)
    newer = {name: statement.excluded[name] for name in ("value", "threshold", "verdict", "told")}
    with engine.begin() as connection:
        if anew:
            connection.execute(sa.delete(RESULTS).where((RESULTS.c.model == model) & (RESULTS.c.day == day)))
        connection.execute(statement.on_conflict_do_update(index_elements=["day", "model", "check"], set_=newer))


def of_day(engine: Engine, model: str, day: date) -> list[Check]:
    """A day's checks, by their names."""
    return [check for _, check in since(engine, model, day, day)]


def since(engine: Engine, model: str, first: date, last: date, like: str = "%") -> list[tuple[date, Check]]:
    """The checks of some days, the oldest first; ``like`` is SQL's pattern for their names."""
    ensure(engine)
    mine = (RESULTS.c.model == model) & RESULTS.c.day.between(first, last) & RESULTS.c.check.like(like)
    wanted = sa.select(RESULTS).where(mine).order_by(RESULTS.c.day, RESULTS.c.check)
    with engine.connect() as connection:
        return [(row["day"], _check(row)) for row in connection.execute(wanted).mappings()]


def newly_failed(engine: Engine, model: str, day: date) -> list[Check]:
    """The day's checks that failed and had not on the day before: what somebody is told of, once."""
    before = {one.name for one in of_day(engine, model, day - timedelta(days=1)) if one.verdict == "failed"}
    return [one for one in of_day(engine, model, day) if one.verdict == "failed" and one.name not in before]


def _check(row: Any) -> Check:
    return Check(name=row["check"], **{name: row[name] for name in ("value", "threshold", "verdict", "told")})
