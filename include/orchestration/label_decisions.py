"""Carries out what a person says about a label: a new one is let in, an old one renamed or merged, or neither any more.

The ledger keeps it with the person's name, and each run that begins later works by it. Repeated, it changes nothing.
"""
# Only imported inside tasks.

from contextlib import suppress
from typing import Literal

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagRunAlreadyExists
from airflow.models import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy.engine import Engine

from include import lake, objects, renaming
from include.datasets import golden
from include.datasets.labels import canonical
from include.orchestration.batches import PIPELINE
from include.orchestration.warehouse import warehouse
from include.registry import label_wishes, ledger, models, versions
from include.registry.label_wishes import ADMIT, INTO, LABEL, MERGE, WITHDRAW, Wishes
from include.registry.ledger import Verb
from include.settings import settings

DAG_ID = "decide_labels"
TOLD = "told"
VERBS: dict[str, Verb] = {"admit": ADMIT, "merge": MERGE, "withdraw": WITHDRAW}


class LabelRefused(RuntimeError):
    """What was said about a label cannot be done; the message says why."""


def decide_label(
    model_name: str,
    decision: Literal["admit", "merge", "withdraw"],
    label: str,
    into: str = "",
    *,
    name: str,
    reason: str,
    run_id: str,
) -> str:
    """Keeps what a person called ``name`` says about a label; returns what follows, in words. Raises LabelRefused.

    ``into`` is the label that ``label`` is to count as; ``run_id`` is the run that carries the word.
    """
    engine = warehouse()
    if mine := ledger.of_run(engine, run_id, VERBS[decision]):
        return str(mine.facts[TOLD])
    label, into = canonical(" ".join(label.split())), canonical(" ".join(into.split()))
    before = label_wishes.of_model(engine, model_name)
    known = _known(model_name, engine)
    if decision == "admit":
        told, again = _admit(label, before, known)
    elif decision == "merge":
        told, again = _merge(model_name, label, into, before, known)
    else:
        told, again = _withdraw(model_name, label, before)
    if again:
        return told
    champion = models.by_alias(model_name, models.CHAMPION)
    entry = ledger.Entry(
        model_name=model_name,
        verb=VERBS[decision],
        version=champion.version if champion else "",
        previous_champion=champion.version if champion else None,
        actor=f"person:{name}",
        reason=reason,
        dag_run_id=run_id,
        facts={LABEL: label, TOLD: told, "by": f"dag:{DAG_ID} {run_id}"}
        | ({INTO: into} if decision == "merge" else {}),
    )
    ledger.append(engine, entry)
    return told


def _admit(label: str, before: Wishes, known: set[str]) -> tuple[str, bool]:
    config = settings()
    if config.labels:
        raise LabelRefused(f"BERT_LABELS lists the labels there may be: add {label!r} there")
    if config.new_labels == "reject":
        raise LabelRefused("BERT_NEW_LABELS=reject keeps new labels out; with wait, they can be admitted one by one")
    if not label:
        raise LabelRefused("say which label")
    if label in known:
        return f"nothing to do: the champion knows the label {label!r}", True
    if label in before.admitted:
        return f"nothing to do: the label {label!r} was admitted before", True
    return (
        f"the label {label!r} joins with its next {config.min_rows_per_label} good rows, those that wait included",
        False,
    )


def _merge(model_name: str, label: str, into: str, before: Wishes, known: set[str]) -> tuple[str, bool]:
    try:
        renaming.check({label: into})
        renaming.check_allowed({label: into}, settings().labels)
    except ValueError as error:
        raise LabelRefused(str(error)) from error
    live = _live(model_name)
    if label in live:
        raise LabelRefused(f"{label!r} is called {live[label]!r} since that went live: name that one")
    if before.mapping.get(label) == into:
        return f"nothing to do: {label!r} was to count as {into!r} before", True
    after = label_wishes.following([(MERGE, {LABEL: old, INTO: new}) for old, new in before.mapping.items()]
                                   + [(MERGE, {LABEL: label, INTO: into})])  # fmt: skip
    left = {after.mapping.get(one, one) for one in known}
    if known and len(left) < 2:
        raise LabelRefused(f"it would leave one label, {left.pop()!r}; a classifier needs two")
    end = after.mapping[label]
    what = "merged into" if end in known else "renamed to"
    return f"{label!r} is {what} {end!r} by the next run, and for good once its model is promoted", False


def _withdraw(model_name: str, label: str, before: Wishes) -> tuple[str, bool]:
    if label in _live(model_name):
        raise LabelRefused(f"what renamed {label!r} is live already: a rollback leaves it, or rename it once more")
    if label not in before.mapping and label not in before.admitted:
        return f"nothing to do: nothing was said of the label {label!r}", True
    return f"what was said of the label {label!r} does not hold any more", False


def train(run_id: str) -> str:
    """Starts a training by what was said, unless one is still to begin; returns what was done, in words."""
    with create_session() as session:
        queued = session.query(DagRun.id).filter(DagRun.dag_id == PIPELINE, DagRun.state == DagRunState.QUEUED).first()
    if queued:
        return "the run that is to begin works by it"
    with suppress(DagRunAlreadyExists):
        trigger_dag(PIPELINE, run_id=f"labels__{run_id}")
    return "a training is started"


def _known(model_name: str, engine: Engine) -> set[str]:
    """The labels of the dataset that the next model is built upon."""
    dataset_id = versions.parent_dataset_id(model_name, engine)
    manifest = lake.dataset(dataset_id, "manifest.json") if dataset_id else ""
    return set(objects.read_json(manifest)["label_counts"]) if manifest and objects.exists(manifest) else set()


def _live(model_name: str) -> dict[str, str]:
    found = golden.read(model_name)
    return found.label_mapping if found else {}
