"""Which golden rows judge: those of the champion's data, whoever has made it the champion."""
# Only imported inside tasks.

from datetime import UTC, datetime

from include import lake, objects
from include.datasets import golden, manifests, snapshots
from include.datasets.intake import Plan
from include.orchestration.warehouse import warehouse
from include.registry import ledger, models, versions
from include.settings import settings

APPROVED = "approved.json"
SHOWN = 5


def follow_champion(model_name: str, because: str, *, promoted: bool = False) -> None:
    """Establishes the golden rows that came with the champion's data, and no others.

    Once it was ``promoted``, labels with more golden rows than their share give some to training. Repeated, or if
    nothing has changed, this changes nothing: so a run that begins makes up for a task that was killed.
    """
    champion, state = models.by_alias(model_name, models.CHAMPION), golden.read(model_name)
    if champion is None or state is None:
        return
    dataset_id = champion.tags.get("dataset_id", "")
    if state.number == 0:
        trained = versions.trained_datasets(model_name, first=dataset_id)
        golden.adopt(model_name, (snapshots.read(one) for one in trained))
    elif state.following == dataset_id and not promoted:
        return
    most = settings().golden_max_rows if promoted else None
    parent = manifests.parent_of(dataset_id)
    one_step_on = parent is not None and parent == state.following  # then what judges now goes on judging
    before = [dataset_id, str(parent)] if one_step_on else manifests.ancestry(dataset_id)
    # A rollback gives no label its old name back: the names of the version's answers are mapped.
    mapping = manifests.label_mapping_of(dataset_id) if promoted or one_step_on else {}
    golden.follow(model_name, before, because, most, keep=one_step_on, mapping=mapping)


def enter_corrections(plan: Plan) -> None:
    """Enters the golden labels that a run's files have corrected in the ledger; repeated, it changes nothing."""
    uri = lake.staging(plan.run_id, "corrections.json")
    if not objects.exists(uri):
        return
    rows, champion = objects.read_json(uri)["rows"], models.by_alias(plan.model_name, models.CHAMPION)
    version = champion.version if champion else ""
    shown = "; ".join(f"{row['text'][:60]!r} from {row['was']} to {row['label']}" for row in rows[:SHOWN])
    entry = ledger.Entry(
        model_name=plan.model_name,
        verb="correct",
        version=version,
        previous_champion=version or None,
        actor=f"run:{plan.run_id}",
        reason=f"{len(rows)} golden rows have another label: {shown}",
        dag_run_id=plan.run_id,
        facts={"corrections": rows},
    )
    ledger.append(warehouse(), entry)


def approve(batch_id: str, reason: str) -> None:
    """Lets a batch's files change as many golden labels as they want to; a person has looked at them."""
    objects.create_json(lake.claims(batch_id, APPROVED), {"reason": reason, "at": datetime.now(UTC)})


def is_approved(batch_id: str) -> bool:
    """Whether a person has approved of a batch's changes of golden labels."""
    return objects.exists(lake.claims(batch_id, APPROVED))
