"""Which golden rows judge: those of the champion's data, whoever has made it the champion."""
# Only imported inside tasks.

from datetime import UTC, datetime

from include import lake
from include.datasets import golden, snapshots
from include.registry import lineage, models
from include.settings import settings

APPROVED = "approved.json"


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
        trained = lineage.trained_datasets(model_name, first=dataset_id)
        golden.adopt(model_name, (snapshots.read(one) for one in trained))
    elif state.following == dataset_id and not promoted:
        return
    most = settings().golden_max_rows if promoted else None
    golden.follow(model_name, lineage.ancestry(dataset_id), because, most)


def approve(batch_id: str, reason: str) -> None:
    """Lets a batch's files change as many golden labels as they want to; a person has looked at them."""
    lake.create_json(lake.claims(batch_id, APPROVED), {"reason": reason, "at": datetime.now(UTC)})


def is_approved(batch_id: str) -> bool:
    """Whether a person has approved of a batch's changes of golden labels."""
    return lake.exists(lake.claims(batch_id, APPROVED))
