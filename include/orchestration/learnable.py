"""How many labelled rows there are that the champion has not learnt from."""
# Only imported inside tasks.

import logging

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from include.orchestration import curating
from include.orchestration.settling import report_of
from include.serving import feedback
from include.uploads import claims, lifecycle

logger = logging.getLogger(__name__)


def new_rows(model: str, engine: Engine) -> int:
    """Rows of uploads that wait, curated rows that were not exported yet, and corrections that were not sent back."""
    found = {"waiting": _waiting(), "curated": _curated(engine), "corrections": feedback.waiting(model)}
    logger.info("labelled rows that the champion has not learnt from: %s", found)
    return sum(found.values())


def _waiting() -> int:
    """Of uploads that a run has read before and that wait for another; what nobody has read yet is not known."""
    rows = 0
    for batch in claims.waiting_batches():
        run_id = lifecycle.read(batch.batch_id).run_id
        files = report_of(run_id).get("files", []) if run_id else []
        rows += sum(
            file["used"] + file.get("waiting", 0)
            for file in files
            if file.get("batch_id", batch.batch_id) == batch.batch_id
        )
    return rows


def _curated(engine: Engine) -> int:
    if not sa.inspect(engine).has_table(curating.EXAMPLES.name):
        return 0
    newer = curating.EXAMPLES.c.label_version > curating.EXAMPLES.c.exported_version
    with engine.connect() as connection:
        return int(
            connection.execute(sa.select(sa.func.count()).select_from(curating.EXAMPLES).where(newer)).scalar_one()
        )
