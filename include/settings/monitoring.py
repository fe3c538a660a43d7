"""The settings of the daily validation: ``BERT_`` and the field's name."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class MonitoringSettings(BaseSettings):
    """When a drift is told, and when it is answered by a new model."""

    model_config = SettingsConfigDict(
        env_prefix="BERT_", frozen=True, populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    false_alarms_per_year: float = Field(
        1.0, gt=0, le=52, description="drifts that are told though there is none, at most and on average, of a model"
    )
    retrain_on_drift: bool = Field(True, description="false: a drift is told and decided on, and nothing is started")
    drift_cool_down_days: int = Field(
        14, ge=0, le=365, description="after a drift was acted on, or a new champion, another changes nothing"
    )
    drift_retrainings_a_month: int = Field(2, ge=0, le=30, description="that a drift may start in 30 days")
    drift_least_new_rows: int = Field(
        50, ge=1, description="labelled rows that the champion has not learnt from; with fewer a drift asks for labels"
    )
