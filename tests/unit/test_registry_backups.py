"""Backups of champions: what is kept, and which of them go."""

import pytest

from include import lake, objects
from include.registry import backups


def test_the_oldest_backups_go_but_never_the_champions(file_lake: str) -> None:
    for version in "123":
        uri = lake.model("m", version)
        objects.write_bytes(f"{uri}config.json", version.encode())
        backups.keep("m", version, uri, tags={})
    assert backups.thin_out("m", 2, "1") == ["2"], "version 1 is the champion again, by a rollback"
    assert backups.require("m", "1").files
    assert backups.thin_out("m", 1, "1") == ["3"]
    assert [one.version for one in backups.known("m")] == ["1"]


def test_a_damaged_backup_is_made_again_unless_the_files_themselves_have_changed(file_lake: str) -> None:
    uri = lake.model("m", "1")
    objects.write_bytes(f"{uri}config.json", b"as it was trained")
    copy = f"{backups.keep('m', '1', uri, tags={}).uri}config.json"
    objects.write_bytes(copy, b"damaged")
    backups.keep("m", "1", uri, tags={})
    assert objects.read_bytes(copy) == b"as it was trained"
    objects.write_bytes(copy, b"damaged")
    objects.write_bytes(f"{uri}config.json", b"damaged as well")
    with pytest.raises(backups.BackupError, match=r"neither its backup nor its files .* another content"):
        backups.keep("m", "1", uri, tags={})
    assert objects.read_bytes(copy) == b"damaged", "it is not taken for what was trained"
