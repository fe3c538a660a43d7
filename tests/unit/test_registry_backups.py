"""Backups of champions: which of them go."""

from include import lake
from include.registry import backups


def test_the_oldest_backups_go_but_never_the_champions(file_lake: str) -> None:
    for version in "123":
        uri = lake.model("m", version)
        lake.write_bytes(f"{uri}config.json", version.encode())
        backups.keep("m", version, uri, tags={})
    assert backups.thin_out("m", 2, "1") == ["2"], "version 1 is the champion again, by a rollback"
    assert backups.require("m", "1").files
    assert backups.thin_out("m", 1, "1") == ["3"]
    assert [one.version for one in backups.known("m")] == ["1"]
