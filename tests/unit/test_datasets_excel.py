import io
import zipfile

import pytest

from include.datasets.reading import UnreadableFileError, read_rows


@pytest.mark.parametrize("cell", ["<x:c r='XFD1048576'/>", '<row r="1048576"/><c r="XFD1"/>'])
def test_a_sheet_is_measured_wherever_it_lies_and_however_it_is_written(cell: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/other/first.xml", cell)
    with pytest.raises(UnreadableFileError, match="spans 17,179,869,184 cells"):
        read_rows(buffer.getvalue(), "f.xlsx")
