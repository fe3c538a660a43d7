"""What annotation tools export, as plain records: Label Studio, Prodigy, Argilla, Doccano, spaCy.

Each has its own way to say which label somebody chose, and that nobody did.
"""

from collections.abc import Iterable
from typing import Any

from include.datasets.labels import NOT_COUNTED
from include.datasets.reading.table import LABEL_COLUMNS

Record = dict[str, Any]


def plain(record: Record) -> tuple[Record, str]:
    """A record with its text and label at the top, and why it has no label if its tool says so.

    What no tool has written comes back as it is.
    """
    for reader in (_label_studio, _argilla, _prodigy, _argilla_flat):
        found = reader(record)
        if found is not None:
            return found
    is_labelled = "label" in record or "labels" in record
    if not is_labelled and isinstance(record.get("cats"), dict):  # spaCy
        return {**record, "label": record["cats"]}, ""
    if is_labelled and "text" not in record and isinstance(record.get("data"), str):  # Doccano
        return {**{name: value for name, value in record.items() if name != "data"}, "text": record["data"]}, ""
    return record, ""


def _label_studio(record: Record) -> tuple[Record, str] | None:
    """``{"data": {"text": …}, "annotations": [{"result": [{"value": {"choices": ["x"]}}]}]}``."""
    data = record.get("data")
    annotations = record.get("annotations", record.get("completions"))
    if not isinstance(data, dict) or not isinstance(annotations, list):
        return None
    valid = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    results = [result for one in valid for result in one.get("result") or [] if isinstance(result, dict)]
    labels = _chosen(results)
    rest = {name: value for name, value in data.items() if name not in ("label", "labels")}
    if not labels:
        return {**rest, "label": None}, "nobody has annotated it in Label Studio"
    return {**rest, "label": _agreed(labels)}, ""


def _chosen(results: list[Record]) -> list[Any]:
    """The labels in annotators' results: choices or a taxonomy's leaves, else ratings, else what was written.

    If several questions were asked, those to the one that has a label's usual name; else those to all, since which of
    them was answered first says nothing.
    """
    for names in (("choices", "taxonomy"), ("labels",), ("rating", "number"), ("text",)):
        found = [
            (result.get("from_name"), value[name])
            for result in results
            for name in names
            if isinstance(value := result.get("value"), dict) and name in value
        ]
        questions = {str(question).lower() for question, _ in found}
        usual = next((name for name in LABEL_COLUMNS if name in questions), None)
        answers = [answer for question, answer in found if usual is None or str(question).lower() == usual]
        if answers:
            some = [one for answer in answers for one in (answer if isinstance(answer, list) else [answer])]
            return [one[-1] if isinstance(one, list) and one else one for one in some]
    return []


def _argilla(record: Record) -> tuple[Record, str] | None:
    """``{"fields": {"text": …}, "responses": {"label": [{"value": "x", "status": "submitted"}]}}``."""
    fields, responses = record.get("fields"), record.get("responses")
    if not isinstance(fields, dict) or not isinstance(responses, dict | list):
        return None
    if isinstance(responses, list):  # its first edition: one answer a person, with values by question
        answers = [
            {"question": question, "status": one.get("status"), **_answer(value)}
            for one in responses if isinstance(one, dict) for question, value in (one.get("values") or {}).items()
        ]  # fmt: skip
    else:
        answers = [
            {"question": question, **_answer(one)}
            for question, some in responses.items() for one in (some if isinstance(some, list) else [some])
        ]  # fmt: skip
    questions = list(dict.fromkeys(answer["question"] for answer in answers))
    wanted = next((name for name in ("label", "labels", "category", "class", "intent") if name in questions), None)
    question = wanted or (questions[0] if questions else None)
    values = [one.get("value") for one in answers if one["question"] == question and _counts(one.get("status"))]
    metadata = record.get("metadata") if isinstance(record.get("metadata"), dict) else {}
    rest = {**(metadata or {}), **({"id": record["id"]} if "id" in record else {}), **_with_text(fields)}
    if not values:
        return {**rest, "label": None}, "nobody has answered it in Argilla"
    return {**rest, "label": _agreed(values)}, ""


def _argilla_flat(record: Record) -> tuple[Record, str] | None:
    """``{"text": …, "label.responses": ["x"], "label.responses.status": ["submitted"]}``, and its first edition's."""
    names = [name for name in record if name.endswith(".responses")]
    if names:
        name = next((one for one in names if one == "label.responses"), names[0])
        values, states = record[name] or [], record.get(f"{name}.status") or []
        kept = [
            value for at, value in enumerate(values) if _counts(states[at] if at < len(states) else None)
        ]  # fmt: skip
        rest = {key: value for key, value in record.items() if not key.startswith(name.removesuffix(".responses"))}
        return {**rest, "label": _agreed(kept) if kept else None}, "" if kept else "nobody has answered it in Argilla"
    if {"annotation", "status"} <= record.keys():
        state, inputs = str(record["status"]).lower(), record.get("inputs")
        text = record.get("text") or (_with_text(inputs).get("text") if isinstance(inputs, dict) else inputs)
        is_labelled = record["annotation"] not in (None, [], "") and state not in NOT_COUNTED
        missing = "" if is_labelled else f"it is {state} in Argilla"
        return {**record, "text": text, "label": record["annotation"]}, missing
    return None


def _prodigy(record: Record) -> tuple[Record, str] | None:
    """``{"text": …, "label": "x", "answer": "accept"}``, or with options ``"accept": ["x"]``."""
    answer = record.get("answer")
    if answer not in ("accept", "reject", "ignore"):
        return None
    chosen = record.get("accept")
    label = chosen if isinstance(chosen, list) else record.get("label")
    dropped = ("answer", "accept", "options", "label") if isinstance(chosen, list) else ("answer",)
    rest = {name: value for name, value in record.items() if name not in dropped and not name.startswith("_")}
    return {**rest, "label": label}, "" if answer == "accept" else f"its answer in Prodigy is {answer!r}"


def _answer(value: Any) -> Record:
    return value if isinstance(value, dict) else {"value": value}


def _with_text(fields: Record) -> Record:
    """An only field is the text, whatever it is called."""
    return {"text": next(iter(fields.values()))} if len(fields) == 1 else fields


def _counts(status: Any) -> bool:
    return str(status or "").lower() not in NOT_COUNTED


def _agreed(labels: Iterable[Any]) -> Any:
    """The label that all have chosen, or all that were chosen."""
    different: list[Any] = []
    for label in labels:
        if label not in different:
            different.append(label)
    return different[0] if len(different) == 1 else different
