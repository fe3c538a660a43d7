"""What versions were trained on, and which of them the next challenger is built upon and judged beside."""

from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import manifests
from include.registry import ledger, models
from include.registry.ledger import Entry
from include.registry.models import ModelVersion

ROWS, PARENT = "rows", "parent_dataset_id"
RELEASED, AWAITING, ASIDE, USED = "released", "awaiting approval", "set aside", "used"
"""The values of the tag ``rows``: a version's new rows went back to those that wait for the next run, or wait for a
person with it, or were set aside or approved with it by a person. Without the tag they are used up."""


def parent_dataset_id(model_name: str, engine: Engine | None = None) -> str | None:
    """The dataset that new rows are added to: the champion's, by the ledger, and by its tags if that does not say.

    It is the same if the champion's version was deleted. Before the first champion it is that of the newest version,
    less its new rows if they wait for the next run, or for a person.
    """
    champion = models.by_alias(model_name, models.CHAMPION)
    last = ledger.last_move(engine, model_name) if engine is not None else None
    if last is not None and last.dataset_id and (champion is None or champion.version == last.version):
        return last.dataset_id
    if champion:
        return champion.tags.get("dataset_id")
    challenger = models.by_alias(model_name, models.CHALLENGER)
    if challenger is None:
        return None
    less = challenger.tags.get(ROWS) in (RELEASED, AWAITING, ASIDE)
    return challenger.tags.get(PARENT if less else "dataset_id") or None


def anchor(model_name: str, engine: Engine) -> ModelVersion | None:
    """The former champion that no challenger may be shown worse than either; None if there is no champion.

    It is what the last move of the champion left it at: after a rollback, the anchor that held when that version was
    promoted. If the ledger names none, or its version is gone or has no files any more, it is the champion itself.
    """
    last = ledger.last_move(engine, model_name)
    version = last.facts.get(ledger.ANCHOR) if last else None
    found = models.by_version(model_name, version) if version else None
    if found is not None and found.ready and models.mend_files(found):
        return found
    return models.by_alias(model_name, models.CHAMPION)


def is_decided(model_name: str, job_id: str) -> bool:
    """Whether a job's model was promoted or rejected before."""
    version = models.of_job(model_name, job_id)
    return version is not None and models.DECISION in version.tags


def trained_datasets(model_name: str, *, first: str) -> list[str]:
    """The datasets that versions were trained on and that are still there, each once, beginning with ``first``."""
    named = [
        first,
        *(version.tags.get("dataset_id", "") for version in models.all_versions() if version.name == model_name),
    ]
    return [one for one in dict.fromkeys(named) if one and objects.exists(lake.dataset(one, "manifest.json"))]


def left_and_regained(engine: Engine, rollback: Entry) -> tuple[list[Entry], list[Entry]]:
    """The promotions whose rows a rollback, or a move by hand, leaves, and those whose rows it returns to."""
    past = (
        []
        if rollback.previous_champion is None
        else ledger.moves_to(engine, rollback.model_name, rollback.previous_champion)
    )
    before = set(manifests.ancestry(past[0].dataset_id if past else None))
    now = set(manifests.ancestry(rollback.dataset_id))
    return (
        ledger.promotions(engine, rollback.model_name, before - now),
        ledger.promotions(engine, rollback.model_name, now - before),
    )
