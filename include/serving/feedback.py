"""What people say of answers: corrections on their way to training data, and labels of texts chosen at random.

Below ``feedback/<model>/``:

- ``date=YYYY-MM-DD/``: corrections, as JSON objects or JSON lines, by the day (UTC) they came. ``send_back`` joins them
  with the prediction log, and drops one file of them in ``incoming/feedback/``, which trains the next model;
- ``sent/``: which corrections went in which file, and which could not and why, so that each goes once;
- ``samples/<sample>.json``: what was given out to be labelled: the answers, without their texts;
- ``labelled/date=YYYY-MM-DD/``: the labels of such texts. They alone are a fair sample, by which accuracy is told, and
  are never trained on.
"""

import io
import json
import logging
import random
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from pydantic import BaseModel

from include import lake, objects
from include.datasets.names import FEEDBACK
from include.serving import prediction_log
from include.serving.prediction_log import folder, text_hash
from include.serving.wire import TextToLabel

logger = logging.getLogger(__name__)

SENT = pa.schema([(name, pa.string()) for name in ("text", "label", "prediction_id", "predicted", "version", "who")])
SAMPLED_FILES = 400  # of the log, that a sample is drawn from
IS_ANSWER = pc.field("role") != "shadow"


class NothingToLabel(RuntimeError):
    """No texts can be given out; the message says why."""


class NoSuchSample(ValueError):
    """A label for a text that was not given out."""


class Sent(BaseModel):
    """A file of corrections: what is in it, and what could not be."""

    name: str
    uri: str  # where the training pipeline found it
    rows: int
    left_out: list[dict[str, str]]  # prediction_id, reason


def keep(model: str, given: dict[str, Any], now: datetime) -> str:
    """Keeps what somebody says of an answer (prediction_id, label; text, who, sample or None); returns where it lies.

    Raises NoSuchSample if it names a sample in which that answer is not.
    """
    place = f"date={now:%Y-%m-%d}/{given['prediction_id']}-{int(now.timestamp() * 1e6)}.json"
    content = {**given, "at": now.isoformat()}
    if sample := given.get("sample"):
        uri = lake.feedback(model, f"samples/{sample}.json")
        asked = objects.read_json(uri)["answers"] if objects.exists(uri) else []
        mine = next((one for one in asked if one["prediction_id"] == given["prediction_id"]), None)
        if mine is None:
            raise NoSuchSample(f"prediction {given['prediction_id']} is not in a sample {sample}")
        return objects.write_json(lake.feedback(model, f"labelled/{place}"), {**mine, **content})
    return objects.write_json(lake.feedback(model, place), content)


def sample(model: str, size: int, days: int, now: datetime) -> tuple[str, list[TextToLabel]]:
    """Texts of the last so many days, any answer as likely as any other; the sample's id, and the texts.

    Raises NothingToLabel if the log has none.
    """
    wanted = [f"{now.date() - timedelta(days=ago):%Y-%m-%d}" for ago in range(days)]
    files = [uri for day in wanted for uri in objects.find(folder(model, day))]
    dice = random.SystemRandom()
    table = pa.concat_tables(prediction_log.read_files(dice.sample(files, min(len(files), SAMPLED_FILES))))
    rows = table.filter(pc.field("text").is_valid() & IS_ANSWER)
    if not rows.num_rows:
        why = "has no texts (BERT_LOG_TEXTS)" if table.num_rows else "is empty"
        raise NothingToLabel(f"the log of the last {days} days {why}: there is nothing to label")
    chosen = rows.take(sorted(dice.sample(range(rows.num_rows), min(size, rows.num_rows)))).to_pylist()
    name = f"{now:%Y%m%d}-{uuid4().hex[:12]}"
    known = ("version", "role", "label", "probability", "text_hash", "at")
    objects.write_json(
        lake.feedback(model, f"samples/{name}.json"),
        {
            "at": now.isoformat(),
            "days": days,
            "answers": [
                {"prediction_id": row["id"], "predicted": row["label"]}
                | {("answered_at" if key == "at" else key): row[key] for key in known if key != "label"}
                for row in chosen
            ],
        },
    )
    return name, [TextToLabel(prediction_id=row["id"], text=row["text"]) for row in chosen]


def send_back(model: str, name: str, until: date) -> list[Sent]:
    """Drops the corrections that came up to a day, and went in no file yet, in ``incoming/`` as one file.

    ``name`` is the file's; repeated with it, nothing goes twice, and what an earlier call left unfinished is finished.
    Returns the files of this call.
    """
    pinned, done = _sendings(model)
    gone = {uri for uris in pinned.values() for uri in uris}
    found = [uri for uri in objects.find(lake.feedback(model)) if (day := _day(model, uri)) and day <= until]
    if name not in pinned and (mine := [uri for uri in found if uri not in gone]):
        objects.create_json(lake.feedback(model, f"sent/{name}.json"), {"corrections": mine})
        pinned[name] = mine
    return [_send(model, one, uris) for one, uris in sorted(pinned.items()) if one not in done]


def records(uris: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What is said in files that have one JSON object each, or one a line; what is none is left out, with a warning.

    Others than the model server may write such files, and a half one is to hold up no day's checks and no retraining.
    """
    for uri in uris:
        content = objects.read_bytes(uri).decode("utf-8", "replace")
        for line in content.splitlines() if uri.endswith(".jsonl") else [content]:
            if found := _parsed(line):
                yield found
            elif line.strip():
                logger.warning("%s says nothing of an answer: %.100s", uri, line)


def waiting(model: str) -> int:
    """How many answers have a correction that went in no file yet."""
    pinned, _ = _sendings(model)
    gone = {uri for uris in pinned.values() for uri in uris}
    found = [uri for uri in objects.find(lake.feedback(model)) if _day(model, uri) and uri not in gone]
    return len({one["prediction_id"] for one in records(found)})


def _sendings(model: str) -> tuple[dict[str, list[str]], set[str]]:
    """The corrections of each file that was begun, by the file's name; and the names of those that are finished."""
    there = objects.find(lake.feedback(model, "sent/"))
    done = {_name(uri, ".done.json") for uri in there if uri.endswith(".done.json")}
    pins = [uri for uri in there if uri.endswith(".json") and not uri.endswith(".done.json")]
    return {_name(uri, ".json"): objects.read_json(uri)["corrections"] for uri in pins}, done


def _send(model: str, name: str, uris: list[str]) -> Sent:
    """Joins some corrections with the log and drops the file, unless that was done."""
    newest = {one["prediction_id"]: one for one in sorted(records(uris), key=lambda one: str(one.get("at", "")))}
    said = _said(model, newest)
    rows, left_out = [], []
    for key, given in newest.items():
        text, reason = _text(given, said.get(key))
        if reason:
            left_out.append({"prediction_id": key, "reason": reason})
            continue
        answer = said[key]
        rows.append({
            "text": text, "label": given["label"], "prediction_id": key, "predicted": answer["label"],
            "version": answer["version"], "who": given.get("who"),
        })  # fmt: skip
    target = f"{lake.root()}/{FEEDBACK}{model}-{name}.parquet"
    sent = Sent(name=name, uri=target, rows=len(rows), left_out=left_out)
    if rows:
        sink = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows, SENT), sink)
        pinned = lake.feedback(model, f"sent/{name}.parquet")  # a repeated call drops the same bytes: the same upload
        objects.create_bytes(pinned, sink.getvalue())
        objects.write_bytes(target, objects.read_bytes(pinned))
    objects.create_json(lake.feedback(model, f"sent/{name}.done.json"), sent.model_dump())
    for one in left_out:
        logger.warning("the correction of %s is left out: %s", one["prediction_id"], one["reason"])
    return sent


def _text(given: dict[str, Any], answer: dict[str, Any] | None) -> tuple[str, str]:
    """The text that a correction is about, or why it is not known."""
    if answer is None:
        return "", "there is no such prediction in the log"
    if answer["text"] is not None:
        return answer["text"], ""
    text = given.get("text")
    if text is None:
        return "", "the log has not its text, and the correction neither"
    if answer["text_hash"] is not None and answer["text_hash"] != text_hash(text):
        return "", "its text is not the one that was answered"
    return text, ""


def _parsed(line: str) -> dict[str, Any]:
    """What somebody says of an answer; empty if a line says nothing of one."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    said = isinstance(found, dict) and all(isinstance(found.get(name), str) for name in ("prediction_id", "label"))
    return found if said else {}


def _said(model: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of predictions what the log has, by their ids, which say the day."""
    by_day: dict[str, list[str]] = {}
    for one in ids:
        by_day.setdefault(f"{one[:4]}-{one[4:6]}-{one[6:8]}", []).append(one)
    found: dict[str, dict[str, Any]] = {}
    for day, mine in by_day.items():
        wanted = pc.field("id").isin(mine) & IS_ANSWER
        for rows in prediction_log.read(model, [day]):
            found |= {row["id"]: row for row in rows.filter(wanted).to_pylist()}
    return found


def _name(uri: str, suffix: str) -> str:
    return uri.rsplit("/", 1)[-1].removesuffix(suffix)


def _day(model: str, uri: str) -> date | None:
    """The day on which a correction came; None for what is none."""
    folder_name = uri.removeprefix(lake.feedback(model)).split("/", 1)[0]
    try:
        return date.fromisoformat(folder_name.removeprefix("date=")) if folder_name.startswith("date=") else None
    except ValueError:
        return None
