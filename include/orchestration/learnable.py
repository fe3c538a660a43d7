"""How many labelled rows there are that the champion has not learnt from."""
# Only imported inside tasks.

import logging

from include.orchestration.settling import report_of
from include.serving import feedback
from include.uploads import claims, lifecycle

logger = logging.getLogger(__name__)


def new_rows(model: str) -> int:
    """Rows of uploads that wait, and corrections that were not sent back: what ``model_retraining_dag`` would take.

    Curated rows that were not exported yet are not among them: the weekly ETL trains on those itself.
    """
    found = {"waiting": _waiting(), "corrections": feedback.waiting(model)}
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
