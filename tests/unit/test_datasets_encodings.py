from pathlib import Path

import pytest

from include.datasets.reading import UnreadableFileError
from include.datasets.reading.encodings import to_utf8

TEXTS = {
    "French": "réclamation à côté, l\u2019été où ça gêne; naïve Noël",
    "German": "die Größe der Tür ließ sich schön ändern; Übergabe",
    "Spanish": "mañana llegará el avión, ¿quizás aquí? acción",
    "Portuguese": "não há reclamação, são três ações",
    "Danish": "smørrebrød på Århus Å er ærligt",
    "English": "I don\u2019t know \u2013 it\u2019s “fine” and costs £5…",
    "capitals": "RÉCLAMATION DE L\u2019ÉTÉ, GRÖSSE, AÇÃO",
}


def read(content: bytes, folder: Path) -> tuple[str, list[str]]:
    source = folder / "source"
    source.write_bytes(content)
    path, warnings = to_utf8(source, folder)
    return path.read_bytes().decode("utf-8", "surrogateescape"), warnings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("language", TEXTS)
def test_unicode_is_read_without_a_warning(language: str, encoding: str, tmp_path: Path) -> None:
    text = f"text,label\n{TEXTS[language]} and more of it,x\n"
    assert read(text.encode(encoding), tmp_path) == (text, [])


@pytest.mark.parametrize(("encoding", "name"), [("cp1252", "Windows-1252"), ("mac_roman", "Mac Roman")])
@pytest.mark.parametrize("language", TEXTS)
def test_windows_and_mac_are_told_apart(language: str, encoding: str, name: str, tmp_path: Path) -> None:
    text = f"text,label\n{TEXTS[language]},x\nplain,y\n"
    read_text, warnings = read(text.encode(encoding), tmp_path)
    assert read_text == text
    assert name in warnings[0]


def test_one_valid_letter_makes_it_utf8_and_leaves_bad_bytes_to_their_rows(tmp_path: Path) -> None:
    text, warnings = read("text,label\nü,x\n".encode() + b"caf\xe9,x\n", tmp_path)
    assert text.endswith("caf\udce9,x\n")
    assert warnings == []


def test_a_letter_that_is_cut_at_a_blocks_end_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (5, 6, 7):
        monkeypatch.setattr("include.datasets.reading.encodings.BLOCK", block)
        assert read("text,label\nüäöß€😀,x\n".encode(), tmp_path) == ("text,label\nüäöß€😀,x\n", [])
        assert read("text,label\nüäöß,x\n".encode("cp1252"), tmp_path)[0] == "text,label\nüäöß,x\n"
        assert read("text,label\nüäöß,x\n".encode("utf-16"), tmp_path)[0] == "text,label\nüäöß,x\n"


def test_what_is_no_text_is_said_to_be_binary(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="binary"):
        read(b"text,label\n" + bytes(range(256)) * 20, tmp_path)
