"""The pages of labels: which there are, new ones to admit or to merge, and texts that are labelled on the spot."""

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

from flask import flash, redirect, request, url_for
from werkzeug.wrappers import Response

from include import lake, objects
from include.datasets.labels import lookalikes
from include.settings import settings
from include.settings.console import ConsoleSettings
from include.uploads import drafts
from include.uploads.open_batches import in_parallel
from plugins.console import parquet, rows, runs, serving, warehouse
from plugins.console.access import DECIDE_LABELS, PIPELINE, Pages, Refused, person, route
from plugins.console.catalogue import of_request

KINDS = {"drift": "to_label/", "unsure": "unsure/"}
"""What is worth labelling, by where the daily checks put it: new texts of a drift come first."""

NEWEST = 50  # files of texts that were labelled
RANDOM = 20
MOST_LABELS = 500


class LabelPages(Pages):
    """``/console/labels``."""

    route_base = "/console/labels"
    default_view = "labels"

    @route("/")
    def labels(self) -> str:
        """The champion's labels, and what persons have said of labels."""
        counts = label_counts()
        return self.page(
            "labels.html",
            labels=sorted(counts.items(), key=lambda one: -one[1])[:MOST_LABELS],
            alike=lookalikes(counts)[:20] if len(counts) <= MOST_LABELS else [],
            said=warehouse.said_of_labels(settings().model_name),
            asked=runs.recent(DECIDE_LABELS, 3),
            needed=settings().new_label_rows,
            fewest=settings().min_rows_per_label,
        )

    @route("/waiting")
    def waiting(self) -> dict[str, Any]:
        """How many rows of each new label wait."""
        return {"labels": parquet.waiting_labels(settings().model_name)}

    @route("/decide", methods=["POST"], starts=DECIDE_LABELS)
    def decide(self) -> Response:
        """Admits a label, or has one count as another, in the name of whoever asks."""
        decision, label, into = (request.form.get(name, "").strip() for name in ("decision", "label", "into"))
        if decision not in ("admit", "merge", "withdraw") or not label or (decision == "merge" and not into):
            raise Refused(of_request()("Say which label, and what is to become of it."))
        conf = {"decision": decision, "label": label, "name": person(), "reason": runs.reason()}
        conf |= {"into": into} if decision == "merge" else {}
        runs.start_asked(DECIDE_LABELS, conf | {"train": "train" in request.form})
        flash(of_request()("Your decision is being carried out."), "info")
        return redirect(url_for("LabelPages.labels", _anchor="asked"))

    @route("/next", starts=PIPELINE)
    def next(self) -> str:
        """Texts that are labelled on the spot."""
        kind = "random" if request.args.get("kind") == "random" else "worth"
        return self.page("next.html", kind=kind, serving=ConsoleSettings().serving_url)

    @route("/next/texts", starts=PIPELINE)
    def texts(self) -> dict[str, Any]:
        """The newest texts that are worth labelling and have no label yet, and the labels there are."""
        origin, found = _worth_labelling()
        return {"origin": origin, "texts": found, "labels": _names()}

    @route("/next/sample", methods=["POST"], starts=PIPELINE)
    def sample(self) -> dict[str, Any]:
        """Texts that the model server has answered, chosen at random; not what it thinks of them."""
        found = serving.ask("sample", {"size": RANDOM})
        texts = [{"id": one["prediction_id"], "text": one["text"]} for one in found["texts"]]
        return {"origin": found["sample"], "texts": texts, "labels": _names()}

    @route("/next/labelled", methods=["POST"], starts=PIPELINE)
    def labelled(self) -> tuple[dict[str, str], int]:
        """Makes an upload of texts that were labelled, and has it looked at like any other."""
        given, ids, origin = rows.posted(), _posted_ids(), _posted_origin()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labelled.csv"
            rows.write(path, given)
            draft = drafts.keep_file(path, f"labelled-{origin}.csv", person(), drafts.LABELLED)
        objects.write_json(_labelled(draft.draft_id), {"ids": ids, "by": draft.by, "at": draft.at})
        runs.start_preview(draft.draft_id, draft.name)
        return {"page": url_for("TrainPages.draft", draft_id=draft.draft_id)}, 201

    @route("/next/answered", methods=["POST"], starts=PIPELINE)
    def answered(self) -> dict[str, str]:
        """Sends labels of texts chosen at random to the model server: the accuracy in use is told by them."""
        given, ids, sample = rows.posted(), _posted_ids(), _posted_origin()
        for one, prediction_id in zip(given, ids, strict=True):
            body = {"prediction_id": prediction_id, "label": one["label"], "sample": sample, "who": person()}
            serving.ask("feedback", body)
        runs.audit("console.labelled", PIPELINE, extra={"sample": sample, "texts": len(ids)})
        flash(of_request()("Thank you: the next daily checks tell the accuracy in use by them."), "info")
        return {"page": url_for("ModelPages.model")}


def label_counts() -> dict[str, int]:
    """The labels that the champion learnt, with their rows; empty if there is no champion, or its data set is gone."""
    now = warehouse.champion(settings().model_name)
    manifest = lake.dataset(now.dataset_id, "manifest.json") if now and now.dataset_id else ""
    found: dict[str, int] = (
        objects.read_json(manifest).get("label_counts", {}) if manifest and objects.exists(manifest) else {}
    )
    return found


def _names() -> list[str]:
    counts = label_counts()
    return sorted(counts, key=lambda label: (-counts[label], label))


def _worth_labelling() -> tuple[str, list[dict[str, Any]]]:
    """Which kind of texts, and of which day; and the texts. Empty if there are none, or all of them have labels."""
    model = settings().model_name
    sent = objects.find(lake.monitoring(model, "labelled/"))[-NEWEST:]
    done = {one for found in in_parallel(objects.read_json, sent) for one in found["ids"]} if sent else set()
    for kind, folder in KINDS.items():
        if uris := objects.find(lake.monitoring(model, folder)):
            content = objects.read_bytes(uris[-1]).decode("utf-8-sig")
            left = [row for row in csv.DictReader(io.StringIO(content)) if row["prediction_id"] not in done]
            texts = [
                {"id": row["prediction_id"], "text": row["text"], "predicted": row["predicted"],
                 "probability": float(row["probability"])}
                for row in left
            ]  # fmt: skip
            if texts:
                return f"{kind}-{uris[-1].rsplit('/', 1)[-1].removesuffix('.csv')}", texts
    return "", []


def _labelled(draft_id: str) -> str:
    return lake.monitoring(settings().model_name, f"labelled/{draft_id}.json")


def _posted_ids() -> list[str]:
    """The answers whose texts were labelled, in the order of the rows. Raises Refused."""
    given = (request.get_json(silent=True) or {}).get("rows", [])
    ids = [row.get("id") for row in given]
    if not all(isinstance(one, str) and 0 < len(one) <= 100 for one in ids):
        raise Refused(of_request()("Each row needs a text and a label."))
    return ids


def _posted_origin() -> str:
    origin = (request.get_json(silent=True) or {}).get("origin", "")
    if not isinstance(origin, str) or not origin or len(origin) > 60:
        raise Refused(of_request()("Say where the texts are from."))
    return lake.slug(origin).rsplit("-", 1)[0]
