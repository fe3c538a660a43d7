"""The settings of the model server: ``BERT_SERVING_`` and the field's name."""

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.settings.types import Names, split


class ServingSettings(BaseSettings):
    """The model server's: ``BERT_SERVING_`` and the field's name."""

    model_config = SettingsConfigDict(
        env_prefix="BERT_SERVING_", frozen=True, populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    port: int = Field(
        8000,
        ge=0,
        le=65_535,
        validation_alias=AliasChoices("BERT_SERVING_PORT", "PORT"),
        description="to listen on; PORT, as platforms give it, will do, and the option --port wins",
    )
    models: Names = Field((), description="registered models to serve, comma-separated; empty: BERT_MODEL_NAME")
    cache: str = Field("", description="folder for champions' files; empty: one in the system's temporary folder")
    look_seconds: float = Field(2.0, gt=0, le=10, description="pause between two looks at the alias champion")
    batch_tokens: int = Field(2_048, ge=16, description="tokens that are answered at a time")
    queue_tokens: int = Field(65_536, ge=16, description="beyond so many waiting tokens requests get 429")
    most_texts: int = Field(256, ge=1, description="of one request")
    most_kib: int = Field(1_024, ge=1, description="of one request's body")
    open: bool = Field(False, description="answer anyone, without a token, elsewhere than on a developer's machine")
    requests_per_minute: int = Field(0, ge=0, description="of one token, or of all callers without one; 0: any number")
    log_texts: Literal["full", "hash", "off"] = Field(
        "full", validation_alias="BERT_LOG_TEXTS", description="whether the prediction log has texts, hashes or neither"
    )
    log_seconds: float = Field(1.0, gt=0, le=60, description="pause between two writes of the prediction log")
    shadow: bool = Field(
        False, validation_alias="BERT_SHADOW", description="also ask the challenger, and answer as the champion does"
    )
    shadow_percent: float = Field(10.0, gt=0, le=100, description="of the requests that it is asked")
    canary_errors: float = Field(0.02, ge=0, le=1, description="share of failed requests by which a canary fails")
    canary_disagreement: float = Field(
        0.2, ge=0, le=1, description="share of texts with another label than before, likewise"
    )
    canary_slower: float = Field(2.0, ge=1, description="how many times as long as before it may take, likewise")
    memory_mib: int = Field(3_072, ge=0, description="a model that takes more is not promoted; 0: any may")
    load_seconds: float = Field(120.0, gt=0, description="nor is one that takes longer to load and to answer first")
    answer_seconds: float = Field(2.0, gt=0, description="nor one that takes longer for one text")
    tokens: SecretStr = Field(
        SecretStr(""), validation_alias="SERVING_TOKENS", description="who may ask: tokens, comma-separated"
    )

    _split_names = field_validator("models", mode="before")(split)
