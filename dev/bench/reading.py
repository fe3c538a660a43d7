"""Which readers get which files right, and how fast and in how much memory they read many rows."""

import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from dev.bench import page, readers, reading_pace, runs
from dev.bench.plan import in_turns
from dev.cases import Case, try_case
from dev.state import REPOSITORY
from include.datasets.checks import normalise
from include.datasets.names import finished_name, is_debris
from include.datasets.reading import UnreadableFileError, open_table
from include.datasets.reading.table import Wanted, find_places
from include.registry.code import code_hash

OURS = "this project"
ROWS = 5_000_000
FEW_ROWS = 1_000_000  # up to here each side is measured twice
RIGHT, OTHER_TEXTS, WRONG, NO_ROWS = "right", "other texts", "wrong", "no rows"

UNREADABLE_ROWS = ("wrong_quotes", "wrong_column_count", "wrong_encoding")
"""Rules of rows that cannot be read: a reader may leave such rows out."""

_LABEL_MATTERS = re.compile(r"label|tools|studio|doccano|prodigy|argilla|words|contradict", re.IGNORECASE)
_ENCODINGS = {"utf.?16": "utf-16", "utf.?32": "utf-32", "1252|windows": "cp1252", "mac": "mac_roman"}
_VERSIONS = ("pandas", "pyarrow", "duckdb", "clevercsv", "charset-normalizer")


@dataclass(frozen=True)
class Outcome:
    """What the intake makes of a file as some reader gives it."""

    rows: int
    used: int
    labels: list[str]


Tell = Callable[[str], None]


def measure(folder: Path, rows: int, tell: Tell) -> None:
    """Compares the readers on a folder of cases and on so many made-up rows (0: those figures stay as they were)."""
    readers.find_packages_aside()
    before: dict[str, Any] = json.loads(page.READING.read_text()) if page.READING.exists() else {}
    found = before | {"cases": compare(folder.resolve(), tell)}
    _write(found)
    if rows:
        _write(found | {"pace": pace(rows, tell)})


def _write(found: dict[str, Any]) -> None:
    page.READING.parent.mkdir(parents=True, exist_ok=True)
    page.READING.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def compare(folder: Path, tell: Tell) -> dict[str, Any]:
    """Every case of a folder that has rows, as every reader gives it."""
    expected: dict[str, Case] = json.loads((folder / "expected.json").read_text())
    cases = []
    for path, case in expected.items():
        if not case["rows"]:
            continue
        verdicts = judge_case(folder, path, case)
        cases.append({"path": path, "about": subject(path), "readers": verdicts})
        tell(f"{path}: {', '.join(f'{name} {verdict}' for name, verdict in verdicts.items())}")
    return {
        "folder": folder.relative_to(REPOSITORY).as_posix() if folder.is_relative_to(REPOSITORY) else folder.name,
        **_facts(),
        "cases": cases,
        "encodings": [
            {"path": path, **_guess((folder / path).read_bytes(), right)}
            for path, case in expected.items()
            if (right := right_encoding(path, case))
        ],
    }


def _facts() -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "code": code_hash(),
        "machine": page.machine() | {"versions": {name: version(name) for name in _VERSIONS}},
    }


def subject(path: str) -> str:
    """What a case is about, by its folder: ``reading``, or ``labels and tools``, which no reader claims to know."""
    return "labels and tools" if _LABEL_MATTERS.search(path.split("/")[0]) else "reading"


def is_right(case: Case, outcome: Outcome) -> bool:
    """Whether the rows of a case, how many are used, and their labels are as expected."""
    rejected = case.get("rejected", {})
    if rejected.get("unreadable_file"):
        return outcome.used == 0
    lost = sum(rejected.get(rule, 0) for rule in UNREADABLE_ROWS)
    return (
        case["rows"] - lost <= outcome.rows <= case["rows"]
        and outcome.used == case.get("used", outcome.used)
        and sorted(outcome.labels) == sorted(case.get("labels", outcome.labels))
    )


def right_encoding(path: str, case: Case) -> str | None:
    """The encoding of a case that is about encodings; None for others."""
    if path.endswith("/") or not re.search("encoding|1252|utf", path.split("/")[0]):
        return None
    name = " ".join([path.rsplit("/", 1)[-1], *case.get("warnings", [])]).lower()
    if name.startswith("utf8"):
        return "utf-8"
    return next((encoding for pattern, encoding in _ENCODINGS.items() if re.search(pattern, name)), "utf-8")


def _guess(content: bytes, right: str) -> dict[str, Any]:
    """charset-normalizer's guess: right if it decodes to the same text."""
    from charset_normalizer import from_bytes

    best = from_bytes(content).best()
    guessed = best.encoding if best else ""
    starts_with_zero = content.startswith(b"\x00")  # without a byte order mark, big endian
    text = content.decode(f"{right}-be" if starts_with_zero else right, "replace")
    return {"encoding": right, "guess": guessed, "right": str(best or "").lstrip("\ufeff") == text.lstrip("\ufeff")}


def judge_case(folder: Path, path: str, case: Case) -> dict[str, str]:
    """What each reader makes of a case: right, right but with other texts than this project's, wrong, or no rows."""
    texts, verdicts = _our_texts(folder, path, case), {}
    for name, read in readers.OTHERS.items():
        with tempfile.TemporaryDirectory() as temporary:
            verdicts[name] = _verdict(folder, path, case, read, texts, Path(temporary))
    verdicts[OURS] = RIGHT if is_right(case, _outcome(try_case(folder, path, case))) else WRONG
    return verdicts


def _outcome(result: Case) -> Outcome:
    return Outcome(result["rows"], result["used"], result["labels"])


def _verdict(
    folder: Path,
    path: str,
    case: Case,
    read: Callable[[Path], readers.Columns],
    texts: Counter[str],
    work: Path,
) -> str:
    """What a reader makes of a case. Its rows go the way of any upload, as JSON lines, so that only reading differs."""
    for earlier in case.get("after", []):
        _copy(folder / earlier, work / earlier)
    given: list[dict[str, Any]] = []
    refused = False
    for file in _units(folder, path):
        name = file.relative_to(folder).as_posix()
        try:
            rows = labelled_rows(read(_named(file, work / "named")), _wanted(case))
        except readers.CannotReadError:  # of something that cannot be read either, it says nothing
            return NO_ROWS
        except Exception:  # whatever else a reader raises, it has not read the file
            refused = True
            continue
        target = work / (f"{name}/rows.jsonl" if file.is_dir() else f"{name}.jsonl")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))
        given += rows
    if refused or not given:
        return RIGHT if is_right(case, Outcome(0, 0, [])) else NO_ROWS
    result = try_case(work, path if path.endswith("/") else f"{path}.jsonl", case)
    if not is_right(case, _outcome(result)):
        return WRONG
    missing = texts - Counter(normalise(str(row["text"])) for row in given)
    return OTHER_TEXTS if missing else RIGHT


def _units(folder: Path, path: str) -> list[Path]:
    """What a reader is given: a file, a folder of Parquet as a whole, or another folder's files one by one."""
    if not path.endswith("/"):
        return [folder / path]
    files = [file for file in sorted((folder / path).rglob("*")) if file.is_file() and not is_debris(file.name)]
    return [folder / path] if all(file.suffix == ".parquet" for file in files) else files


def _named(file: Path, folder: Path) -> Path:
    """The file under the name that it has when its writer has finished; a folder as it is."""
    if file.is_dir() or finished_name(file.name) == file.name:
        return file
    return _copy(file, folder / finished_name(file.name))


def _copy(file: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(file, target))


def _wanted(case: Case) -> Wanted:
    environment = case.get("env", {})
    return Wanted(environment.get("BERT_TEXT_COLUMN", ""), environment.get("BERT_LABEL_COLUMN", ""))


def labelled_rows(columns: readers.Columns, wanted: Wanted) -> list[dict[str, Any]]:
    """Texts and labels, found among the columns as this project finds them. Raises UnreadableFileError."""
    names = list(columns)
    places = find_places(names, wanted, {})
    if places.label is None:
        raise UnreadableFileError("no label column")
    texts, labels = columns[names[places.text]], columns[names[places.label]]
    return [{"text": _plain(text), "label": _plain(label)} for text, label in zip(texts, labels, strict=True)]


def _plain(value: Any) -> Any:
    """A value as JSON has it: bytes that a reader could not decode get signs for what is not UTF-8, NaN is nothing."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, float) and value != value else value


def _our_texts(folder: Path, path: str, case: Case) -> Counter[str]:
    """The texts that this project reads; without those that have bytes which are not UTF-8."""
    wanted, texts = _wanted(case), Counter[str]()
    files = sorted((folder / path).rglob("*")) if path.endswith("/") else [folder / path]
    for file in files:
        if not file.is_file() or is_debris(file.name):
            continue
        try:
            with open_table(file, file.relative_to(folder).as_posix(), wanted.text, wanted.label) as table:
                for frame in table.frames:
                    texts.update(_comparable(frame.loc[frame["rule"] == "", "text"]))
        except UnreadableFileError:
            continue
    return texts


def _comparable(texts: Iterable[Any]) -> list[str]:
    shown = [str(text) for text in texts]
    return [normalise(text) for text in shown if not re.search("[\ud800-\udfff]", text)]


def pace(rows: int, tell: Tell) -> dict[str, Any]:
    """Seconds, CPU seconds and peak memory of every side, each in processes of their own, in turns."""
    rounds = 2 if rows <= FEW_ROWS else 1
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in reading_pace.SIDES}
    with tempfile.TemporaryDirectory(prefix="bench-reading-") as name:
        work = Path(name)
        table = work / "rows.csv"
        reading_pace.write_rows(table, rows)
        size = table.stat().st_size
        tell(f"{rows:,} rows, {size / 2**30:.2f} GiB")
        for number, side in enumerate(in_turns(tuple(reading_pace.SIDES), rounds)):
            sample = _sample(side, table, work / str(number))
            found[side].append(sample)
            shutil.rmtree(work / str(number))
            tell(f"{side}: {sample['seconds']} s, {sample['cpu_seconds']} CPU s, {sample['peak_mib']} MiB")
    wrong = [side for side, samples in found.items() if side != "clevercsv" and samples[0]["rows"] != rows]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: {found[wrong[0]][0]['rows']:,} rows instead of {rows:,}")
    return {
        **_facts(),
        "command": f"make bench-reading{f' ROWS={rows}' if rows != ROWS else ''}",
        "rows": rows,
        "gib": round(size / 2**30, 2),
        "samples": found,
        "ratios": ratios(found),
    }


def _sample(side: str, table: Path, folder: Path) -> dict[str, Any]:
    lake, report = folder / "lake", folder / "report.json"
    lake.mkdir(parents=True)
    command = [sys.executable, "-m", "dev.bench.reading_pace", side, str(table), str(report)]
    done = runs.run(runs.Launch(command, {"BERT_BUCKET": f"file://{lake}", "TMPDIR": str(folder)}), folder)
    return {**json.loads(report.read_text()), "others": done.others}


def ratios(samples: dict[str, list[dict[str, Any]]], base: str = "pandas.read_csv") -> dict[str, float]:
    """Rows per second of each side over those of ``base``, medians of each."""
    paces = {
        side: median(one["rows"] / max(one["seconds"], 0.01) for one in several) for side, several in samples.items()
    }
    return {side: round(rows / paces[base], 2) for side, rows in paces.items()}
