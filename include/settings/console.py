"""The settings of the console: ``BERT_CONSOLE_`` and the field's name."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.settings.types import Names, split


class ConsoleSettings(BaseSettings):
    """The console's: ``BERT_CONSOLE_`` and the field's name. Read in the webserver."""

    model_config = SettingsConfigDict(
        env_prefix="BERT_CONSOLE_", frozen=True, populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    upload_mib: int = Field(100, ge=1, le=4_096, description="a file that is uploaded through the console is no larger")
    part_mib: int = Field(
        128, ge=5, le=5_120, description="a larger file goes to S3 in parts of this size, each again if it is cut off"
    )
    serving_url: str = Field(
        "", pattern=r"^(https?://\S+)?$", description="the model server, as Airflow's webserver reaches it"
    )
    serving_token: SecretStr = Field(
        SecretStr(""), validation_alias="CONSOLE_SERVING_TOKEN", description="a token of it, where it asks for one"
    )
    s3_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="S3's endpoint as a browser reaches it, if that is another than AWS_ENDPOINT_URL",
    )
    price_per_hour: float = Field(0.0, ge=0, description="of a training, shown beside the time that it takes; 0: not")
    currency: str = Field("USD", min_length=1, max_length=8, description="of that price")
    origins: Names = Field(
        (), description="pages of other origins that may use its API with a token, comma-separated: https://example.com"
    )

    _split_names = field_validator("origins", mode="before")(split)


class GunicornSettings(BaseSettings):
    """What gunicorn says of itself to the application that it serves."""

    model_config = SettingsConfigDict(frozen=True)

    server_software: str = Field("", description="its name and version, in its own processes")


class MlflowLogin(BaseSettings):
    """MLflow's own variables, as its client reads them."""

    model_config = SettingsConfigDict(
        env_prefix="MLFLOW_TRACKING_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    username: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
