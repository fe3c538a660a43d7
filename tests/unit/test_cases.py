import json

import pytest

from dev import cases

EXPECTED = json.loads((cases.OWN_CASES / "expected.json").read_text())


@pytest.mark.parametrize("path", EXPECTED)
def test_a_case_comes_out_as_it_should(path: str) -> None:
    result = cases.try_case(cases.OWN_CASES, path, EXPECTED[path])
    assert result["ok"], result
    assert result["rows"] == result["used"] + sum(result["rejected"].values()), "no row is lost"


def test_a_wrong_expectation_is_noticed() -> None:
    path = "dialects/sep_line.csv"
    for wrong in ({"used": 23}, {"labels": ["garden"]}, {"rejected": {"duplicate": 1}}, {"warnings": ["1252"]}):
        assert cases.try_case(cases.OWN_CASES, path, EXPECTED[path] | wrong)["ok"] is False, wrong
    assert cases.try_case(cases.OWN_CASES, path, None)["ok"] is None
