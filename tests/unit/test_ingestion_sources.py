"""The list of sources: what can stand there, and what is said of what cannot."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.ingestion.sources import PROJECT, SourceError, dag_id_of, interval, main, read

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
    for nothing in ("", "sources:\ntargets:"):
        assert read(write(tmp_path, nothing)).sources == ()
    assert main([str(tmp_path / "sources.yaml")]) == 0
    assert main([str(tmp_path / "other.yaml")]) == 1
    assert "there is no" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_each_schedule_has_one_dag_however_it_is_written(tmp_path: Path) -> None:
    written = ["0 22 * * 1-5", "0 22 * * 1,5", "0  22 * * 1-5", "0 22 */5 * *", "every 2 weeks", "weekly"]
    week = read(
        write(tmp_path, {"sources": [FTP | {"name": f"a{at}", "schedule": one} for at, one in enumerate(written)]})
    )
    assert {dag_id_of(one): names for one, names in week.schedules().items()} == {
        "weekly_etl": ["a5"],
        "weekly_etl_0_22_any_any_1_to_5": ["a0", "a2"],
        "weekly_etl_0_22_any_any_1_and_5": ["a1"],
        "weekly_etl_0_22_any_by_5_any_any": ["a3"],
        "weekly_etl_every_2_weeks": ["a4"],
    }
    assert list(map(interval, written[3:])) == ["0 22 */5 * *", timedelta(weeks=2), "@weekly"]


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
        ({"sources": [FTP | {"schedule": "daily"}]}, "field 'schedule': 'daily' is neither 'weekly' nor some weeks"),
        ({"sources": [FTP | {"kind": ["ftp"]}]}, "source 'support-desk': field 'kind': \"['ftp']\" is none"),
        ({"sources": [FTP | {"connection": ""}]}, "source 'support-desk': field 'connection': String should have at"),
        ({"sources": FTP}, "field 'sources': Input should be a list"),
        ([FTP], "sources.yaml: Input should be a mapping of fields"),
        ("sources: []\ntargets: []\nsources: []", "twice, the second time\n  in \"<unicode string>\", line 3"),
        ("sources:\n- {name: a, name: b}", "'name' stands there twice"),
        ("sources: [{{ a }}]", "found unhashable key"),
        ({"scripts": ["include/scripts/steps/redact.py"] * 2}, "two scripts have the same name"),
        ({"quality": {"languages": ["english"]}}, "field 'quality.languages.0': String should match pattern"),
        ({"sources": [FTP | {"labelled": False}]}, "'support-desk': a source without labels has to name its text"),
        ({"sources": [{"name": "a", "kind": "sql", "connection": "w"}]}, "source 'a': give either 'table' or 'query'"),
        ({"targets": [{"kind": "s3", "url": "s3://x/y"}]}, "target number 1: field 'uri': it is missing"),
        ({"targets": [{"kind": "s3", "uri": "s3://x", "fromat": "csv"}]}, "'fromat' is unknown; did you mean 'format'"),
        ({"scripts": ["include/scripts/steps/redcat.py"]}, "include/scripts/steps/redcat.py"),
        ({"quality": {"lenght": False}}, "field 'quality.lenght' is unknown; did you mean 'length'?"),
        ({"conflicts": "oldest"}, "field 'conflicts': Input should be 'newest', 'majority' or 'trusted'"),
        ("sources: [", "sources.yaml is no YAML"),
    ],
    ids=range(26),
)  # fmt: skip
def test_what_is_wrong_is_said_with_source_field_and_nearest_name(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(SourceError) as error:
        read(write(tmp_path, content))
    assert said in str(error.value)
