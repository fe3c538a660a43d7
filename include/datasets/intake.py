"""Takes files in for one run: every row of every file ends as accepted, rejected with a reason, or waiting."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import fnmatch
import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from include import lake, objects
from include.datasets import golden, newcomers, snapshots, warnings
from include.datasets.checks import IN_LABEL, rows_hash, text_keys
from include.datasets.judging import NEW_LABEL, UNAPPROVED, Known, Labels, Numbers, Rows, judge
from include.datasets.names import is_debris
from include.datasets.sorting import accepted_again, sort_rows
from include.datasets.spool import Spooled, SpoolJob, judged_rows, spool, spool_alone
from include.settings import settings

logger = logging.getLogger(__name__)


class Source(BaseModel):
    """A file to take in: ``key`` as the user named it, ``uri`` where it lies, ``batch_id`` whose quarantine is its."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    key: str
    uri: str


class Plan(BaseModel):
    """What a run works on, pinned when it first starts: a run that is repeated later must not see later data."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    dag_id: str = ""  # empty in plans of older versions
    model_name: str
    sources: list[Source]
    newcomers: list[Source] = []  # files of rows whose label was too new until now
    parent_dataset_id: str | None
    golden_number: int | None = None  # the state of the golden set that files are compared with; None: the newest
    approved: list[str] = []  # batches whose many changes of golden labels a person has approved
    text_column: str = ""  # the run's; empty: the setting's, or found by name
    label_column: str = ""
    label_mapping: dict[str, str] = {}  # old names of labels, and the new ones that they count as
    admitted: list[str] = []  # new labels that a person lets in

    def pin(self) -> "Plan":
        """Writes the plan unless this run has one already; returns the one that counts."""
        uri = lake.staging(self.run_id, "plan.json")
        objects.create_bytes(uri, self.model_dump_json(indent=2).encode())
        return Plan.model_validate_json(objects.read_bytes(uri))


class FileAccount(BaseModel):
    """What became of one file's rows. A file that cannot be read counts as one row, rejected."""

    key: str
    batch_id: str
    rows_in: int
    used: int
    rejected: int
    waiting: int = 0
    waits_for: list[str] = []  # ``judging.UNAPPROVED`` if it is a person's word
    by_rule: dict[str, int] = {}
    quarantine: str | None = None
    reason: str = ""  # why the file as a whole cannot be read
    warnings: list[str] = []  # what somebody should look at, though the rows are used


class Intake(BaseModel):
    """What a run took in; ``accepted_uri`` is a Parquet file with the columns text, label, source and extra."""

    files: list[FileAccount]
    accepted_uri: str
    accepted_rows: int
    accepted_hash: str = ""  # ``checks.rows_hash`` of them
    missing: str = ""  # why the rows have to wait for more; empty: there is enough
    warnings: list[str] = []  # about all files' rows together
    newcomers: list[str] = []  # URIs of rows that had waited and take part

    @property
    def rows(self) -> dict[str, int]:
        """All files' rows together: in, used, rejected, waiting."""
        return {
            "in": sum(file.rows_in for file in self.files),
            "used": sum(file.used for file in self.files),
            "rejected": sum(file.rejected for file in self.files),
            "waiting": sum(file.waiting for file in self.files),
        }


class _Readable(BaseModel):
    """A file that was read: its number among the plan's, its source, and its rows on the local disk."""

    number: int
    source: Source
    spooled: Spooled


def sources_at(uri: str) -> list[Source]:
    """The files at a URI: one object, a folder, or a pattern in which ``*``, and nothing else, stands for anything.

    Raises FileNotFoundError if there are none.
    """
    files = objects.filesystem(uri)
    if files.isfile(uri):
        paths = [uri]
    elif "*" in uri:
        below = files.find(uri.split("*", 1)[0].rsplit("/", 1)[0])
        paths = [path for path in below if _matches(files.unstrip_protocol(path), uri)]
    else:
        paths = files.find(uri)
    uris = sorted(files.unstrip_protocol(path) for path in paths if not is_debris(path))
    if not uris:
        raise FileNotFoundError(f"no file at {uri}: give a file, a folder that ends in /, or a pattern with *")
    batch_id = f"uri-{hashlib.sha256(chr(10).join(uris).encode()).hexdigest()[:16]}"
    return [Source(batch_id=batch_id, key=path.split("://", 1)[1].split("/", 1)[1], uri=path) for path in uris]


def _matches(uri: str, pattern: str) -> bool:
    """Whether a URI matches as in a shell, where ``*`` stands for no slash. A folder brings all that lies in it."""
    literal = "".join(f"[{character}]" if character in "[?" else character for character in pattern.rstrip("/"))
    parts, wanted = uri.split("/"), literal.split("/")
    return len(parts) >= len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def copy_to_staging(sources: list[Source], run_id: str) -> list[Source]:
    """Copies files that no batch owns to a run's staging, where nobody overwrites them while the run works."""
    staged = []
    for at, source in enumerate(sources):
        target = lake.staging(run_id, f"sources/{at}/{lake.plain(source.uri.rsplit('/', 1)[-1])}")
        objects.filesystem(source.uri).cp_file(source.uri, target)
        staged.append(source.model_copy(update={"uri": target}))
    return staged


def validate_files(plan: Plan, *, isolated: bool = False) -> Intake:
    """Reads and judges all of a plan's files; writes accepted rows to staging and rejected ones to quarantine.

    A plan without files is to train on the champion's rows again: they are what is accepted then, unless rows that have
    waited join them. As long as the good rows have to wait for more, those of rare labels wait with them: with more
    rows, a label is not rare. ``isolated`` reads each file in a process of its own, and a file that kills it counts as
    one that cannot be read.
    """
    golden_set, parent, told = _known(plan)
    accepted_uri = lake.staging(plan.run_id, "accepted.parquet")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        readable, accounts = _read_all(plan, folder, isolated=isolated)
        rows, set_aside = _judge(plan, readable, golden_set, parent)
        counts = rows.label_counts()
        missing = "" if len(golden_set.established) or parent is not None else _missing(counts) or _vanishing(rows)
        waiting = rows.broken_by(UNAPPROVED, NEW_LABEL, *(["label_too_rare"] if missing else []))
        files = {file.number: (file.source.key, file.source.batch_id, file.spooled) for file in readable}
        sorted_to = [(file.source.key, _rejected_uri(plan, file), file.spooled) for file in readable]
        rejected = sort_rows(rows, sorted_to, folder, waiting)
        first = len(plan.sources)
        unapproved = rows.broken_by(UNAPPROVED) & (rows.file >= first)  # of others their batch waits
        newcomers.keep(rows, files, rows.broken_by(NEW_LABEL) | unapproved, plan.run_id, folder)
        size, accepted_hash = sum(counts.values()), rows_hash(rows.key[rows.good], counts)
        if not size and not plan.sources and parent is not None:
            size = accepted_again(parent, folder / "accepted.parquet")
            accepted_hash = rows_hash(text_keys(parent["text"]), parent["label"].value_counts().to_dict())
        objects.upload_file(folder / "accepted.parquet", accepted_uri)
        for uri, path in rejected.items():
            objects.upload_file(path, uri)
    found = _rejections(rows, waiting)
    for file in readable:
        by_rule = found.get(file.number, {})
        waits = waiting | rows.good if missing else waiting
        accounts[file.number] = _account(file, rows, by_rule, waits, set_aside, _rejected_uri(plan, file))
    # What waited before is only told of if that has an end, or if somebody could end it.
    shown = [
        one for number, one in sorted(accounts.items()) if number < first or one.used or one.rejected or one.waits_for
    ]
    return Intake(
        newcomers=[one.uri for at, one in enumerate(plan.newcomers, first) if at in accounts and accounts[at].used],
        files=shown,
        accepted_uri=accepted_uri,
        accepted_rows=size,
        accepted_hash=accepted_hash,
        missing=missing,
        warnings=[*told, *_corrections(rows, golden_set), *_label_warnings(counts, golden_set, parent)],
    )


def _known(plan: Plan) -> tuple[golden.GoldenSet, pd.DataFrame | None, list[str]]:
    """The golden set and the champion's rows with the labels that count in this run, and what changes by that, told."""
    golden_set = golden.read(plan.model_name, plan.golden_number) or golden.nothing()
    parent = snapshots.read(plan.parent_dataset_id) if plan.parent_dataset_id else None
    told = _renamed(golden_set, parent, plan.label_mapping)
    if parent is not None:
        parent = golden.rename(parent, plan.label_mapping)
    return golden_set.renamed(plan.label_mapping), parent, told


def _read_all(plan: Plan, folder: Path, *, isolated: bool) -> tuple[list[_Readable], dict[int, FileAccount]]:
    """The files that can be read, and the accounts of the others by their number."""
    config = settings()
    readable, unreadable = [], {}
    for number, source in enumerate(plan.sources):
        try:
            path = objects.download_file(source.uri, folder / f"{number}.upload")
        except FileNotFoundError:  # deleted by hand, or expired: no later try finds it either
            unreadable[number] = _lost(source)
            continue
        job = SpoolJob(
            path=path,
            key=source.key,
            target=folder / f"{number}.arrow",
            text_column=plan.text_column or config.text_column,
            label_column=plan.label_column or config.label_column,
            max_characters=config.max_text_characters,
        )
        spooled = spool_alone(job) if isolated else spool(job)
        if spooled.reason:
            unreadable[number] = _quarantine_file(source, job.path, spooled.reason)
        else:
            readable.append(_Readable(number=number, source=source, spooled=spooled))
        job.path.unlink()
    for number, source in enumerate(plan.newcomers, start=len(plan.sources)):
        with suppress(FileNotFoundError):
            waited = newcomers.spooled(source.uri, folder / f"{number}.arrow")
            readable.append(_Readable(number=number, source=source, spooled=waited))
    return readable, unreadable


def _judge(
    plan: Plan, readable: list[_Readable], golden_set: golden.GoldenSet, parent: pd.DataFrame | None
) -> tuple[Rows, dict[int, str]]:
    """All files' rows with their rules and reasons, and which files are set aside as a whole, by their number."""
    sources = [*plan.sources, *plan.newcomers]
    rows = judged_rows([one.key for one in sources], {file.number: file.spooled for file in readable})
    set_aside = judge(
        rows,
        labels=_labels(golden_set, parent, plan),
        golden=Known.of(golden_set.established["text"], golden_set.established["label"]),
        approved=[number for number, source in enumerate(sources) if source.batch_id in plan.approved],
        waited=range(len(plan.sources), len(sources)),
        known=Known.of([], []) if parent is None else Known.of(parent["text"], parent["label"], parent.get("source")),
    )
    return rows, set_aside


def _labels(golden_set: golden.GoldenSet, parent: pd.DataFrame | None, plan: Plan) -> Labels:
    config, mapping = settings(), plan.label_mapping
    known = (
        sorted({*golden_set.labels, *([] if parent is None else parent["label"].unique())}) if golden_set.labels else []
    )
    fewest = config.min_rows_per_label
    return Labels(
        model=list(dict.fromkeys(mapping.get(label, label) for label in config.labels)) or known or None,
        fewest=fewest,
        open=not config.labels and config.new_labels != "reject",
        needed=fewest if config.new_labels == "admit" else config.new_label_rows,
        admitted=[mapping.get(label, label) for label in (*config.admitted_labels, *plan.admitted)],
        mapping=mapping,
    )


def _renamed(golden_set: golden.GoldenSet, parent: pd.DataFrame | None, mapping: Mapping[str, str]) -> list[str]:
    """A sentence for each label whose name changes with this run."""
    if not mapping:
        return []
    trained = Counter([] if parent is None else parent["label"])
    judging = Counter(golden_set.rows["label"])
    return [
        f"{old} → {new}: {trained[old]:,} rows of the champion's dataset and {judging[old]:,} golden rows change names"
        for old, new in mapping.items()
        if trained[old] or judging[old]
    ]


def _corrections(rows: Rows, golden_set: golden.GoldenSet) -> list[str]:
    """A sentence about the golden rows that get another label; nothing if there are none."""
    was = dict(zip(text_keys(golden_set.established["text"]).tolist(), golden_set.established["label"], strict=True))
    found = np.flatnonzero(rows.good & np.isin(rows.key, list(was))).tolist()
    shown = ", ".join(
        f"{rows.names[rows.label[place]]} instead of {was[int(rows.key[place])]} ({rows.source(place)})"
        for place in found[:5]
    )
    return [f"{len(found)} golden rows have another label now: {shown}"] if found else []


def _missing(counts: Mapping[str, int]) -> str:
    """Why a first model cannot be trained and tested on these good rows by label yet; empty if it can."""
    config = settings()
    needed = round(config.golden_min_rows / config.golden_fraction)
    if (good := sum(counts.values())) < needed:
        return f"{good} good rows so far, and the first model needs {needed} (BERT_GOLDEN_MIN_ROWS)"
    if len(counts) < 2:
        return "all rows have the same label; a classifier needs two"
    return ""


def _vanishing(rows: Rows) -> str:
    """Which class a first model would not know, because it is written in bytes that nobody can read; empty if none."""
    odd = [place for place, (rule, reason) in rows.broken.items() if rule == "wrong_encoding" and IN_LABEL in reason]
    counts = Counter(rows.names[rows.label[place]] for place in odd)
    label, count = counts.most_common(1)[0] if counts else ("", 0)
    if count < settings().min_rows_per_label:
        return ""
    file = rows.files[rows.file[odd[0]]]
    return f"class {label!r}, {count} rows, would be missing: its bytes in {file} are not UTF-8; mend that file first"


def _label_warnings(used: Mapping[str, int], golden_set: golden.GoldenSet, parent: pd.DataFrame | None) -> list[str]:
    if not used:
        return []
    config = settings()
    if len(golden_set.established):
        judged = {str(label): float(count) for label, count in golden_set.established["label"].value_counts().items()}
    else:
        share = min(config.golden_fraction, config.golden_max_rows / sum(used.values()))
        judged = {label: float(round(count * share)) for label, count in used.items()}
    trained = {} if parent is None else {str(label): int(n) for label, n in parent["label"].value_counts().items()}
    return warnings.of_labels(used, trained, judged, config.min_class_rows)


def _rejections(rows: Rows, waiting: Numbers) -> dict[int, dict[str, int]]:
    """How many rows of each file were rejected by which rule; without those that wait."""
    found: dict[int, dict[str, int]] = {}
    for place, (rule, _) in rows.broken.items():
        if not waiting[place]:
            by_rule = found.setdefault(int(rows.file[place]), {})
            by_rule[rule] = by_rule.get(rule, 0) + 1
    return found


def _rejected_uri(plan: Plan, file: _Readable) -> str:
    """Where a file's rejected rows go: those that had waited go beside what the run that took them in rejected."""
    waited = file.number >= len(plan.sources)
    return lake.quarantine(file.source.batch_id, f"rejected{f'-{lake.slug(plan.run_id)}' if waited else ''}.parquet")


def _account(
    file: _Readable, rows: Rows, by_rule: dict[str, int], waiting: Numbers, set_aside: dict[int, str], rejected_uri: str
) -> FileAccount:
    mine = rows.file == file.number
    size, rejected = int(mine.sum()), sum(by_rule.values())
    labels = len(np.unique(rows.label[mine]))
    whole = set_aside.get(file.number)
    good = int((mine & (rows.good | waiting)).sum())
    logger.info("%s: %d rows, %d good, %d rejected %s", file.source.key, size, good, rejected, by_rule or "")
    news = [*warnings.of_renamed(rows, file.number), *warnings.of_new_labels(rows, mine)]
    return FileAccount(
        key=file.source.key,
        batch_id=file.source.batch_id,
        rows_in=size,
        used=int((mine & rows.good & ~waiting).sum()),
        waiting=int((mine & waiting).sum()),
        rejected=rejected,
        by_rule=dict(sorted(by_rule.items())),
        quarantine=rejected_uri if by_rule else None,
        waits_for=[UNAPPROVED] if (mine & rows.broken_by(UNAPPROVED)).any() else [],
        warnings=[*file.spooled.warnings, *([whole] if whole else warnings.of_file(size, labels, by_rule)), *news],
    )


def _lost(source: Source) -> FileAccount:
    """The account of a file that is gone; it stops no other file of its run, nor those of all later ones."""
    reason = f"it is no longer at {source.uri}: somebody has deleted it. Upload it again, and it is used"
    logger.warning("%s is lost: %s", source.key, reason)
    return _unreadable(source, reason, None)


def _quarantine_file(source: Source, path: Path, reason: str) -> FileAccount:
    """Keeps a file that is no table, whole, with the reason beside it."""
    name = lake.plain(source.key.removeprefix("incoming/"))
    uri = objects.upload_file(path, lake.quarantine(source.batch_id, f"files/{name}"))
    objects.write_json(f"{uri}.reason.json", {"file": source.key, "rule": "unreadable_file", "reason": reason})
    logger.warning("%s is quarantined whole: %s", source.key, reason)
    return _unreadable(source, reason, uri)


def _unreadable(source: Source, reason: str, quarantine: str | None) -> FileAccount:
    return FileAccount(
        key=source.key,
        batch_id=source.batch_id,
        rows_in=1,
        used=0,
        rejected=1,
        by_rule={"unreadable_file": 1},
        quarantine=quarantine,
        reason=reason,
    )
