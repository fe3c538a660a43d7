"""What the weekly ETL reads: a typed list of sources in one YAML file, checked while the DAG file is parsed.

``python -m include.ingestion.sources [file]`` says what is wrong with a list, and ends with 1 if anything is.
"""

import difflib
import re
import sys
from collections.abc import Hashable
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from include.settings import settings

PROJECT = Path(__file__).parents[2]
WEEKLY = "weekly"
_EVERY = re.compile(r"every ([2-9]|[1-4]\d) weeks")
_CRON_WORDS = {"*": "any", ",": "_and_", "-": "_to_", "/": "_by_"}
Format = Literal["csv", "tsv", "jsonl", "json", "parquet", "xlsx"]


class SourceError(ValueError):
    """The list of sources is wrong; the message names source, field and what was probably meant."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Model):
    """Names of the columns; empty: found by the usual names, as in an upload."""

    text: str = ""
    label: str = ""


class Paging(_Model):
    """How a REST API hands out its pages."""

    by: Literal["next_link", "link_header", "page", "offset", "cursor"]
    field: str = Field(
        "", description="next_link, cursor: where the answer has it, dotted; page, offset: the parameter"
    )
    parameter: str = Field("", description="cursor: the parameter that takes it")
    first: int = Field(1, ge=0, description="page: number of the first page")
    size: int = Field(100, ge=1, description="page, offset: rows of a page")
    size_parameter: str = Field("", description="the parameter that asks for that many")

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = {"next_link": ["field"], "page": ["field"], "offset": ["field"], "cursor": ["field", "parameter"]}
        for name in needed.get(self.by, []):
            if not getattr(self, name):
                raise ValueError(f"paging by {self.by} needs {name!r}")
        return self


class _Source(_Model):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="names the folder in raw/ and the map index")
    schedule: str = Field(
        WEEKLY, description="weekly; else 'every 2 weeks' or a cron expression: such sources get a DAG of their own"
    )
    labelled: bool = Field(True, description="false: its texts are given to the champion for predictions")
    trust: int = Field(0, description="where labels contradict: the greater, the more it counts")
    columns: Columns = Columns()
    format: Format | None = Field(None, description="where the files' names do not say it")
    settled_seconds: float = Field(60, ge=0, description="a file that changed less than this ago may still grow")
    attempts: int = Field(5, ge=1, description="how often a broken transfer is resumed before the task fails")

    by_curl: ClassVar[bool] = False
    """Whether the shell script fetches it."""

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, schedule: str) -> str:
        from croniter import croniter

        schedule = " ".join(schedule.split())
        if schedule != WEEKLY and not _EVERY.fullmatch(schedule) and not croniter.is_valid(schedule):
            raise ValueError(
                f"{schedule!r} is neither 'weekly' nor some weeks, as 'every 2 weeks', nor a cron expression, as "
                "'0 22 * * *' for every day at 22:00"
            )
        return schedule

    @model_validator(mode="after")
    def _unlabelled_text(self) -> Self:
        if not self.labelled and not self.columns.text:
            raise ValueError("a source without labels has to name its text column (columns: {text: …})")
        return self


class _Files(_Source):
    """Files that lie in a folder: new is what has another name, size or time of change."""

    path: str = Field(min_length=1)
    pattern: str = Field("*", description="of file names, as a shell reads it; ** in the folders below, too")


class Folder(_Files):
    """A folder that is mounted on the workers."""

    kind: Literal["folder"]
    wait_minutes: float = Field(
        0, ge=0, description="a run waits that long for the first file that the pattern names; then it fails"
    )


class Ftp(_Files):
    """An FTP server, or with ``kind: ftps`` one with explicit TLS."""

    kind: Literal["ftp", "ftps"]
    connection: str = Field(min_length=1)

    by_curl = True


class Sftp(_Files):
    """An SFTP server; its host key is checked as the Airflow connection says."""

    kind: Literal["sftp"]
    connection: str = Field(min_length=1)


class S3(_Files):
    """A bucket, maybe another account's: ``path`` is ``bucket/prefix``; new is what has another ETag."""

    kind: Literal["s3"]
    connection: str = "aws_default"


class Http(_Source):
    """Files at URLs; new is what has another ETag, or another time of change and size."""

    kind: Literal["http"]
    connection: str = Field(min_length=1)
    paths: tuple[str, ...] = Field(min_length=1)
    auth: Literal["", "basic", "bearer", "header"] = Field(
        "", description="from the connection: login and password; its password as token; its extra's headers"
    )

    by_curl = True


class Rest(_Source):
    """A REST API that answers JSON; with a ``cursor`` only records that are newer than the newest so far."""

    kind: Literal["rest"]
    connection: str = Field(min_length=1)
    path: str
    records: str = Field("", description="where in the answer the list of records is, dotted; empty: it is the answer")
    params: dict[str, str] = {}
    paging: Paging | None = None
    auth: Literal["", "basic", "bearer", "header"] = ""
    cursor: str = Field("", description="the field that grows with each record")
    since: str = Field("", description="the parameter that asks for records after a cursor")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.cursor) != bool(self.since):
            raise ValueError("cursor and since belong together: the field, and the parameter that takes its value")
        return self


class Sql(_Source):
    """A table or a query of any database that has an Airflow connection; with a ``cursor`` only newer rows."""

    kind: Literal["sql"]
    connection: str = Field(min_length=1)
    table: str = ""
    query: str = ""
    cursor: str = Field("", description="a column that grows with each new row: a time of change, or a number")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.table) == bool(self.query):
            raise ValueError("give either 'table' or 'query'")
        return self


class Mongo(_Source):
    """A MongoDB collection; with a ``cursor`` (often ``_id``) only newer documents."""

    kind: Literal["mongo"]
    connection: str = Field(min_length=1)
    database: str
    collection: str
    filter: dict[str, Any] = {}
    cursor: str = ""


Source = Annotated[Folder | Ftp | Sftp | S3 | Http | Rest | Sql | Mongo, Field(discriminator="kind")]
KINDS: dict[str, type[_Source]] = {
    kind: model
    for model in (Folder, Ftp, Sftp, S3, Http, Rest, Sql, Mongo)
    for kind in get_args(model.model_fields["kind"].annotation)
}


class Quality(_Model):
    """The rules of ``preprocess_data``; ``false`` switches one off."""

    missing: bool = True
    encoding: bool = True
    boilerplate: bool = True
    length: bool = True
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2}$")], ...] = Field(
        (), description="ISO 639-1 codes; empty: the rule is off"
    )
    near_duplicates: bool = True
    across_weeks: bool = Field(True, description="with near_duplicates: also those of earlier weeks' texts")
    features: bool = Field(True, description="the other columns as numbers: categories as codes, numbers scaled")
    similarity: float = Field(0.85, gt=0, le=1, description="of two texts' word pairs, from which on they count as one")


class S3Target(_Model):
    """The whole table as one object, ``<uri>/training_examples.parquet`` or ``.jsonl``, replaced by each run."""

    kind: Literal["s3"]
    uri: str = Field(pattern=r"^\w+://.", description="a folder that the workers may write to")
    format: Literal["parquet", "jsonl"] = "parquet"


class MongoTarget(_Model):
    """A collection with a document for each text; its ``_id`` is the text's hash."""

    kind: Literal["mongo"]
    connection: str = Field(min_length=1)
    database: str
    collection: str


Target = Annotated[S3Target | MongoTarget, Field(discriminator="kind")]


class Week(_Model):
    """All that the file says."""

    sources: tuple[Source, ...] = ()
    scripts: tuple[str, ...] = Field(
        (), description="Python files that change texts before they are loaded, each as a step: scripts/steps/"
    )
    targets: tuple[Target, ...] = Field((), description="where the curated rows are written to, beside the warehouse")
    conflicts: Literal["newest", "majority", "trusted"] = Field(
        "newest", description="which label a text has that came with several"
    )
    quality: Quality = Quality()

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sources are called {name!r}")
        return self

    @model_validator(mode="after")
    def _scripts_are_there(self) -> Self:
        for name in self.scripts:
            if not (PROJECT / name).is_file():
                raise ValueError(f"there is no script {PROJECT / name}")
        stems = [Path(name).stem for name in self.scripts]
        if len({*stems}) < len(stems):
            raise ValueError("two scripts have the same name; each is a task that is called after its file")
        return self

    def source(self, name: str) -> Source:
        """The source of a name. Raises SourceError with the nearest if there is none."""
        for source in self.sources:
            if source.name == name:
                return source
        raise SourceError(f"there is no source {name!r}{_nearest(name, [source.name for source in self.sources])}")

    def schedules(self) -> dict[str, list[str]]:
        """The names of the sources by their schedule; the weekly one is always there."""
        found: dict[str, list[str]] = {WEEKLY: []}
        for source in self.sources:
            found.setdefault(source.schedule, []).append(source.name)
        return found


def interval(schedule: str) -> str | timedelta:
    """A source's schedule as Airflow takes it."""
    every = _EVERY.fullmatch(schedule)
    return timedelta(weeks=int(every[1])) if every else "@weekly" if schedule == WEEKLY else schedule


def dag_id_of(schedule: str) -> str:
    """The DAG of a schedule: ``weekly_etl``, and ``weekly_etl_0_22_any_any_1_to_5`` for ``0 22 * * 1-5``."""
    if schedule == WEEKLY:
        return "weekly_etl"
    words = "".join(_CRON_WORDS.get(sign, sign) for sign in schedule)
    return f"weekly_etl_{re.sub(r'[^A-Za-z0-9]+', '_', words).strip('_')}"


class _Loader(yaml.SafeLoader):
    """YAML's own takes the last of two keys with one name, and says nothing: a source would be gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping. Raises YAMLError with the line of a key that was there before."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [key.value for key in keys]
        for at, name in enumerate(names):
            if name in names[:at]:
                said = f"{name!r} stands there twice, the second time"
                raise yaml.constructor.ConstructorError(None, None, said, keys[at].start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Week:
    """What a file says. Raises SourceError with a sentence for each thing that is wrong with it."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise SourceError(f"there is no {path} (BERT_SOURCES)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} (BERT_SOURCES) cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise SourceError(f"{path.name} is no YAML: {error}") from error
    if isinstance(content, dict):  # "sources:" with nothing below it
        content = {name: value for name, value in content.items() if value is not None}
    try:
        return Week.model_validate(content or {})
    except ValidationError as error:
        told = "; ".join(dict.fromkeys(_told(one, content) for one in error.errors()))
        raise SourceError(f"{path.name}: {told}") from error


@lru_cache(maxsize=1)
def week() -> Week:
    """What the project's file says: ``BERT_SOURCES``, below the project's folder unless it is an absolute path."""
    return read(PROJECT / settings().sources)


def _told(error: Any, content: Any) -> str:
    """One error of pydantic's in words: which source, which field, what was probably meant."""
    place, known = list(error["loc"]), list(Week.model_fields)
    where, fields = "", place
    if place[:1] == ["sources"] and len(place) > 1:
        at = place[1]
        entry = content["sources"][at]
        name = entry.get("name") if isinstance(entry, dict) else None
        where = f"source {name!r}: " if name else f"source number {at + 1}: "
        kind = str(entry.get("kind") or "") if isinstance(entry, dict) else ""
        fields = [part for part in place[2:] if part != kind]
        known = list(KINDS[kind].model_fields) if kind in KINDS else []
        if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
            given = f"{kind!r} is none" if kind else "it is missing"
            return f"{where}field 'kind': {given}{_nearest(kind, list(KINDS))}; there are {', '.join(KINDS)}"
    if place[:1] == ["targets"] and len(place) > 2:
        where, fields = f"target number {place[1] + 1}: ", place[3:]
        targets: dict[str, type[_Model]] = {"s3": S3Target, "mongo": MongoTarget}
        known = list(targets[place[2]].model_fields)
    field = ".".join(map(str, fields))
    if error["type"] == "extra_forbidden":
        parents: dict[str, type[_Model]] = {"columns": Columns, "paging": Paging, "quality": Quality}
        parent = parents.get(fields[0]) if len(fields) > 1 else None
        known = list(parent.model_fields) if parent else known
        return f"{where}field {field!r} is unknown{_nearest(str(fields[-1]), known)}"
    said = error["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    said = re.sub(r"valid dictionary or (?:instance of \w+|object to extract fields from)", "mapping of fields", said)
    said = "it is missing" if error["type"] == "missing" else said
    return f"{where}field {field!r}: {said}" if field else f"{where}{said}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        found = read(Path(arguments[0]) if arguments else PROJECT / settings().sources)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(found.sources)} sources: {', '.join(source.name for source in found.sources) or 'none yet'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
