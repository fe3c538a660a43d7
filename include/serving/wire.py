"""What requests and answers look like: our own, the Open Inference Protocol's (v2) and MLflow's."""

import csv
import io
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from include.registry.pyfunc import text_column
from include.serving.prediction_log import Role

Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class WireError(ValueError):
    """A request that cannot be understood; the message says what was expected."""


class PredictRequest(BaseModel):
    """Texts to be labelled."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["my card has not arrived yet", "I want a refund"], "top_k": 2}]},
    )

    texts: list[Text] = Field(min_length=1)
    model: Name | None = Field(None, description="which one, if the server has several")
    top_k: int = Field(1, ge=1, le=1000, description="how many labels of each text, the most probable first")
    ids: list[Name | None] | None = Field(None, description="the caller's own names of the texts, kept in the log")


class Candidate(BaseModel):
    """A label and how probable it is."""

    label: str
    probability: float


class Prediction(BaseModel):
    """The answer to one text."""

    id: str = Field(description="give it back with /feedback")
    label: str
    probability: float
    top: list[Candidate]
    cut: bool = Field(description="whether the text is longer than the model reads, and its end was left out")


class PredictResponse(BaseModel):
    """The answers, in the order of the texts."""

    model: str
    version: str
    predictions: list[Prediction]


class Compared(BaseModel):
    """What one version says to one text."""

    version: str
    role: Role
    top: list[Candidate]


class CompareRequest(BaseModel):
    """A text that is tried."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": "I want a refund", "top_k": 2}]})

    text: Text
    model: Name | None = None
    top_k: int = Field(5, ge=1, le=1000, description="how many labels, the most probable first")


class FeedbackRequest(BaseModel):
    """What an answer should have been."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"prediction_id": "20261126-0123456789abcdef0123456789abcdef", "label": "refund"}]
        },
    )

    prediction_id: str = Field(pattern=r"^[0-9]{8}-[0-9a-f]{32}$")
    label: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
    text: Text | None = Field(None, description="needed where the server logs hashes of texts, or nothing of them")
    who: Name | None = Field(None, description="who says so")
    sample: str | None = Field(
        None,
        pattern=r"^[0-9]{8}-[0-9a-f]{12}$",
        description="the sample in which the text was given out",
    )
    model: Name | None = None


class FeedbackResponse(BaseModel):
    """What was kept."""

    prediction_id: str
    kept: bool = True


class SampleRequest(BaseModel):
    """How many texts are to be labelled."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"size": 20, "days": 7}]})

    size: int = Field(20, ge=1, le=500)
    days: int = Field(7, ge=1, le=90, description="how far back their answers may lie")
    model: Name | None = None


class TextToLabel(BaseModel):
    """A text whose label is asked for; what the model thinks of it is not told."""

    prediction_id: str
    text: str


class SampleResponse(BaseModel):
    """Texts chosen at random: each label comes back by /feedback, with the sample's id."""

    sample: str
    texts: list[TextToLabel]


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferRequest(BaseModel):
    """An inference request of the Open Inference Protocol: one tensor of texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["my card has not arrived"]}]}
            ]
        }
    )

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[Tensor] = Field(min_length=1)
    outputs: list[dict[str, Any]] | None = None

    def texts(self) -> list[str]:
        """The texts of the one input. Raises WireError."""
        if len(self.inputs) != 1:
            raise WireError(f"one input of texts is expected, not {len(self.inputs)}")
        tensor = self.inputs[0]
        if tensor.datatype != "BYTES":
            raise WireError(f"input {tensor.name} is {tensor.datatype}: texts are BYTES")
        if not tensor.data or not all(isinstance(one, str) for one in tensor.data):
            raise WireError(f"input {tensor.name} has something in its data that is no text, or nothing")
        if tensor.shape not in ([len(tensor.data)], [len(tensor.data), 1]):
            raise WireError(f"input {tensor.name} has {len(tensor.data)} texts, and its shape is {tensor.shape}")
        return list(tensor.data)


class InferResponse(BaseModel):
    """Labels, their probabilities, and the ids of the predictions."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Tensor]


def mlflow_texts(body: bytes, content_type: str) -> list[str]:
    """The texts of a request as MLflow's scoring server takes them: JSON of four kinds, or CSV with a header.

    Raises WireError, with what was expected.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _column(list(csv.DictReader(io.StringIO(body.decode("utf-8", "replace")))))
    if kind != "application/json":
        raise WireError(f"Content-Type is {kind or 'missing'}: it should be application/json or text/csv")
    try:
        given = json.loads(body)
    except ValueError as error:
        raise WireError(f"the body is no JSON: {error}") from None
    keys = ("dataframe_split", "dataframe_records", "instances", "inputs")
    found = [key for key in keys if isinstance(given, dict) and key in given]
    if len(found) != 1:
        raise WireError(f"the body should be a JSON object with one of {', '.join(keys)}")
    value = given[found[0]]
    if found[0] == "dataframe_split":
        return _column(_records(value))
    if isinstance(value, dict):  # {"text": ["a text", …]}
        value = value[_text_column(list(value))]
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return _column(value)
    return _texts(value if isinstance(value, list) else [value])


def _records(split: Any) -> list[dict[str, Any]]:
    """The rows of a data frame whose columns' names stand apart."""
    columns, rows = (split.get("columns"), split.get("data")) if isinstance(split, dict) else (None, None)
    if not (isinstance(columns, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows)):
        raise WireError('dataframe_split should be {"columns": ["text"], "data": [["a text"], …]}')
    return [dict(zip(map(str, columns), row, strict=False)) for row in rows]


def _column(rows: list[dict[str, Any]]) -> list[str]:
    """The texts of a table's rows. Raises WireError."""
    if not rows:
        raise WireError("there are no rows")
    name = _text_column(list(rows[0]))
    return _texts([row.get(name) for row in rows])


def _text_column(names: list[str]) -> str:
    try:
        return str(text_column(names))
    except ValueError as error:
        raise WireError(str(error)) from None


def _texts(values: list[Any]) -> list[str]:
    for at, value in enumerate(values):
        if not isinstance(value, str):
            raise WireError(f"row {at} is {json.dumps(value, default=str)[:50]}, which is no text")
    if not values:
        raise WireError("there are no texts")
    return values
