"""The types of settings that are more than a number or a word."""

import json
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import NoDecode

from include.settings.detection import LOGIN

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""An amount of bytes as Kubernetes writes it: ``16Gi``."""

Names = Annotated[tuple[str, ...], NoDecode]
"""Comma-separated in the environment, or a JSON list if a name has a comma."""


def _without_login(uri: str) -> str:
    if LOGIN.search(uri):
        raise ValueError("looks like a credential: a login belongs into MLFLOW_TRACKING_USERNAME and _PASSWORD")
    return uri


TrackingUri = Annotated[str, AfterValidator(_without_login)]
"""MLflow's address, which everyone who may read a job sees."""


def parse_object(value: object) -> object:
    """A JSON object as the environment has it; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f'it is no JSON object, as {{"name": "value"}} ({error})') from error


def split(value: object) -> object:
    """What `Names` are made of."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return tuple(json.loads(value))
        except (ValueError, TypeError) as error:
            raise ValueError(f"it begins like a JSON list and is none ({error})") from error
    return tuple(part.strip() for part in value.split(",") if part.strip())


PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
"""The schedules that Airflow has names for."""


def cron(value: str) -> str:
    """A schedule that Airflow takes, or none."""
    if not value or value in PRESETS:
        return value
    from croniter import croniter  # here: the trainer's and the server's images have none, and no schedule either

    if not croniter.is_valid(value):
        raise ValueError(f"{value!r} is neither one of {', '.join(PRESETS)} nor a cron expression, as 0 22 1 * *")
    return value
