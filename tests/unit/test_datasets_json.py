import json
from typing import Any

import pytest

from include.datasets.reading import UnreadableFileError, json_table, read_rows


def pairs(content: bytes | list[Any] | dict[str, Any], key: str = "f.json") -> list[tuple[object, object]]:
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    frame = read_rows(content, key)
    return list(zip(frame["text"], frame["label"], strict=True))


def test_choices_of_label_studio_count_beside_a_comment_or_a_rating() -> None:
    results = [
        {"from_name": "topic", "value": {"choices": ["x"]}},
        {"from_name": "comment", "value": {"text": ["unsure"]}},
        {"from_name": "stars", "value": {"rating": 3}},
    ]
    assert pairs([{"data": {"text": "a"}, "annotations": [{"result": results}]}]) == [("a", "x")]


def test_argilla_text_may_stand_among_its_inputs() -> None:
    record = {"text": None, "inputs": {"text": "a"}, "prediction": None, "annotation": "x", "status": "Validated"}
    assert pairs([record]) == [("a", "x")]


def test_the_first_answer_of_two_questions_is_not_taken_for_the_label() -> None:
    mood, team = ({"from_name": name, "value": {"choices": [name[0]]}} for name in ("mood", "team"))
    tasks = [{"data": {"text": "a"}, "annotations": [{"result": some}]} for some in ([mood, team], [team, mood])]
    assert pairs(tasks) == [("a", ["m", "t"]), ("a", ["t", "m"])]
    kind = {**team, "from_name": "category"}
    assert pairs([{"data": {"text": "a"}, "annotations": [{"result": [mood, kind]}]}]) == [("a", "t")]


def test_objects_inside_a_broken_one_are_no_rows() -> None:
    broken, good = '{"text": "b", "tags": [{"x": 1},{"y": 2}], "label": y}', '{"text": "a", "label": "x"}'
    for content, key in ((f"[{good},{broken},{good}]", "f.json"), (f"{good}\n{broken}\n{good}", "f.jsonl")):
        frame = read_rows(content.encode(), key)
        assert list(frame["rule"]) == ["", "not_json", ""]
    assert list(read_rows(f"{good}\n{good}{good}\n".encode(), "f.jsonl")["rule"]) == ["", "", ""]


def test_one_object_that_is_too_long_is_a_row_that_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_table, "LONGEST_LINE", 2000)
    with pytest.raises(UnreadableFileError, match="JSON object"):
        read_rows(b'{"text": "' + b"b" * 10_000 + b'", "label": "x"}', "f.jsonl")


def test_the_only_task_of_label_studio_is_a_row() -> None:
    result = [{"from_name": "topic", "value": {"choices": ["x"]}}]
    assert pairs({"data": {"text": "a"}, "annotations": [{"result": result}]}) == [("a", "x")]
