"""The warehouse's SQL in the dialects of warehouses that are not here: it parses and keeps its parts. It is not run."""

import pytest
import sqlglot
from sqlglot import exp

from include import sql


@pytest.mark.parametrize("dialect", ["snowflake", "bigquery", "redshift", "databricks"])
@pytest.mark.parametrize("name", ["transform", "enter", *sql.ORDERS])
def test_the_sql_says_the_same_in_every_warehouses_dialect(name: str, dialect: str) -> None:
    if name == "transform":
        written = sql.transform("etl_raw_1")
    elif name == "enter":
        written = sql.enter("etl_curated_1")
    else:
        written = sql.settle("etl_curated_1", name)
    (ours,) = sqlglot.parse(written, read="postgres")
    (theirs,) = sqlglot.parse(ours.sql(dialect=dialect), read=dialect)
    for part in (exp.Table, exp.Window, exp.Case, exp.Join, exp.Count, exp.Cast, exp.Group):
        assert len(list(theirs.find_all(part))) == len(list(ours.find_all(part))), part
    assert theirs.named_selects == ours.named_selects
    # As it is written it is understood there, too: the Astro SDK pushes it down without translating it.
    (as_written,) = sqlglot.parse(written, read=dialect)
    assert as_written.named_selects == ours.named_selects
