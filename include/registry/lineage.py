"""Which version came from which job and which data."""

from include.registry import models


def parent_dataset_id(model_name: str) -> str | None:
    """The dataset that new rows are added to: the champion's, or before the first champion the newest version's."""
    champion = models.by_alias(model_name, models.CHAMPION)
    version = champion or models.by_alias(model_name, models.CHALLENGER)
    return version.tags.get("dataset_id") if version else None


def is_decided(model_name: str, job_id: str) -> bool:
    """Whether a job's model was promoted or rejected before."""
    version = models.of_job(model_name, job_id)
    return version is not None and models.DECISION in version.tags
