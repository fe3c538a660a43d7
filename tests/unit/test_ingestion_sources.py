"""The list of sources: what can stand there, and what is said of what cannot."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from include.ingestion.sources import PROJECT, SourceError, main, read

FTP = {"name": "support-desk", "kind": "ftp", "connection": "ftp_support", "path": "/out"}


def write(folder: Path, content: Any) -> Path:
    path = folder / "sources.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_source_of_five_lines_has_usual_values_for_the_rest(tmp_path: Path) -> None:
    week = read(write(tmp_path, {"sources": [FTP | {"columns": {"text": "message"}}]}))
    (source,) = week.sources
    assert (source.kind, source.columns.text, source.pattern, source.schedule) == ("ftp", "message", "*", "weekly")
    assert (source.labelled, source.by_curl, week.conflicts) == (True, True, "newest")
    assert week.source("support-desk") is source
    assert week.schedules() == {"weekly": ["support-desk"]}


def test_the_projects_own_list_and_an_empty_one_are_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(PROJECT / "include/ingestion/sources.yaml").sources == ()
    assert read(write(tmp_path, "")).sources == ()
    assert main([str(tmp_path / "sources.yaml")]) == 0
    assert main([str(tmp_path / "other.yaml")]) == 1
    assert "there is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"source": []}, "sources.yaml: field 'source' is unknown; did you mean 'sources'?"),
        ({"sources": [FTP | {"conection": "x"}]}, "source 'support-desk': field 'conection' is unknown; did you mean"),
        ({"sources": [FTP | {"kind": "sfpt"}]}, "source 'support-desk': field 'kind': 'sfpt' is none; did you mean"),
        ({"sources": [{"name": "a"}]}, "source 'a': field 'kind': it is missing; there are folder, ftp, ftps, sftp"),
        ({"sources": [{"kind": "folder", "path": "/x"}]}, "source number 1: field 'name': it is missing"),
        ({"sources": [{"name": "a", "kind": "ftp", "path": "x"}]}, "source 'a': field 'connection': it is missing"),
        ({"sources": [FTP | {"columns": {"txt": "x"}}]}, "field 'columns.txt' is unknown; did you mean 'text'?"),
        ({"sources": [FTP, FTP]}, "two sources are called 'support-desk'"),
        ({"sources": [FTP | {"schedule": "daily"}]}, "schedule 'daily' is neither 'weekly' nor a cron expression"),
        ({"sources": [FTP | {"labelled": False}]}, "'support-desk': a source without labels has to name its text"),
        ({"sources": [{"name": "a", "kind": "sql", "connection": "w"}]}, "source 'a': give either 'table' or 'query'"),
        ({"targets": [{"kind": "s3", "url": "s3://x/y"}]}, "target number 1: field 'uri': it is missing"),
        ({"targets": [{"kind": "s3", "uri": "s3://x", "fromat": "csv"}]}, "'fromat' is unknown; did you mean 'format'"),
        ({"scripts": ["include/scripts/steps/redcat.py"]}, "include/scripts/steps/redcat.py"),
        ({"quality": {"lenght": False}}, "field 'quality.lenght' is unknown; did you mean 'length'?"),
        ({"conflicts": "oldest"}, "field 'conflicts': Input should be 'newest', 'majority' or 'trusted'"),
        ("sources: [", "sources.yaml is no YAML"),
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_wrong_is_said_with_source_field_and_nearest_name(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(SourceError) as error:
        read(write(tmp_path, content))
    assert said in str(error.value)
