"""The simulation of a year of decisions: what it found must hold, and its verdicts are those of a whole decision."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dev.simulate import page, runs
from dev.simulate.world import Challengers, Setting, Worlds
from include.evaluation.gates import Decision, Thresholds, decide
from include.settings import Settings

DEFAULTS = Thresholds(**{name: Settings.model_fields[name].default for name in Thresholds.model_fields})
FEW = runs.Size(worlds=400, challengers=3, years=200)


def decided(worlds: Worlds, new: Challengers, world: int, thresholds: Thresholds) -> Decision:
    """What the gates say of one golden set, row by row."""
    labels: list[str] = []
    answers: list[tuple[bool, bool, bool]] = []  # whether challenger, champion and anchor are right
    for kind in range(worlds.setting.classes):
        of = []
        for anchor in (0, 1):
            for champion in (0, 1):
                right = int(new.open_right[anchor][champion][world, kind])
                rows = int(worlds.open[anchor][champion][world, kind])
                of += [(place < right, bool(champion), bool(anchor)) for place in range(rows)]
        broken, fixed = int(new.broken[world, kind]), int(new.fixed[world, kind])
        of += [(place >= broken, True, True) for place in range(int(worlds.easy[world, kind]))]
        of += [(place < fixed, False, False) for place in range(int(worlds.hard[world, kind]))]
        labels += [f"class {kind}"] * len(of)
        answers += of
    challenger, champion, anchor = (
        [label if right[model] else "wrong" for label, right in zip(labels, answers, strict=True)] for model in range(3)
    )
    return decide(labels, challenger, champion, None if worlds.anchor_is_champion[world] else anchor, thresholds)


@pytest.mark.parametrize("when_unsure", ["promote", "keep"])
@pytest.mark.parametrize("setting", [Setting(120, 4, 0.2, 0.7), Setting(300, 3, 0.06, 0.92)], ids=["hard", "usual"])
def test_the_simulated_verdicts_are_those_of_a_whole_decision(setting: Setting, when_unsure: str) -> None:
    thresholds = DEFAULTS.model_copy(update={"when_unsure": when_unsure, "min_class_recall": 0.65, "min_accuracy": 0.5})
    random = np.random.default_rng(3)
    worlds = Worlds.begin(setting, 40, random)
    seen = set()
    for ability in (0.0, -0.03, 0.0, -0.06, 0.15, -0.25):
        new = worlds.challengers(ability, random)
        promoted, new_anchor = worlds.decide(new, thresholds)
        for world in range(40):
            decision = decided(worlds, new, world, thresholds)
            assert (decision.promote, decision.new_anchor) == (promoted[world], new_anchor[world])
            seen |= {gate.name for gate in decision.gates if not gate.passed}
        worlds.promote(new, promoted, new_anchor)
    assert {"non_inferiority", "anchor"} <= seen
    assert "class_recall" in seen


def test_models_differ_on_as_many_rows_as_was_asked_for_and_by_the_difference() -> None:
    setting = Setting(1000, 5, 0.06, 0.92)
    random = np.random.default_rng(4)
    worlds = Worlds.begin(setting, 400, random)
    for difference in (-0.1, -0.04, 0.0, 0.02):
        (fixed, broken), _, right = worlds.beside(worlds.challengers(difference, random))
        rows = 400 * 1000
        assert (fixed.sum() - broken.sum()) / rows == pytest.approx(difference, abs=0.001)
        assert (fixed.sum() + broken.sum()) / rows == pytest.approx(max(0.06, abs(difference)), abs=0.001)
        assert right.sum() / rows == pytest.approx(0.92 + difference, abs=0.001)


@pytest.mark.parametrize(
    ("rows", "classes", "after"), [(600, 2, 0), (600, 10, 0), (2000, 10, 0), (600, 10, runs.WEEKS)]
)
def test_from_600_golden_rows_the_gates_keep_their_bounds(rows: int, classes: int, after: int) -> None:
    found = runs.cells(Setting(rows, classes, 0.06, 0.92), DEFAULTS, FEW, after)
    shares = {cell["true_difference"]: runs.share(cell) for cell in found}
    assert shares[-0.04] <= 0.05
    assert shares[0.0] >= 0.9
    assert shares[0.02] >= 0.98


def test_a_year_of_slightly_worse_challengers_does_not_add_up() -> None:
    year = runs.years(Setting(1000, 5, 0.06, 0.92), DEFAULTS, FEW.years)
    assert year["ended_worse_than_twice_the_margin"] <= 0.05 * year["years"]
    lenient = DEFAULTS.model_copy(update={"anchor_confidence": 1 - 1e-12, "gate_confidence": 0.999})
    without = runs.years(Setting(1000, 5, 0.06, 0.92), lenient, 50)
    assert without["mean_drop"] > 2 * year["mean_drop"], "the anchor is what stops it"


def test_keep_lets_next_to_none_in_after_a_year_which_is_why_it_is_no_default() -> None:
    keep = DEFAULTS.model_copy(update={"when_unsure": "keep"})
    usual = Setting(400, 5, 0.06, 0.92)
    small = replace(FEW, worlds=200)
    assert runs.equal_ones_after_weeks(usual, keep, small, runs.WEEKS) < 0.2
    assert runs.equal_ones_after_weeks(usual, DEFAULTS, small, runs.WEEKS) > 0.85


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """As little as the page can be written of."""
    tiny = runs.Size(worlds=8, challengers=1, years=8)
    usual = [Setting(rows, 5, 0.06, 0.92) for rows in runs.YEARS_ROWS]
    cells = [cell for one in usual for after in (0, 1) for cell in runs.cells(one, DEFAULTS, tiny, after)]
    for cell in cells:
        cell["after_promotions"] *= runs.WEEKS
    by_rows = [runs.years(one, DEFAULTS, 8) for one in usual]
    return {
        "cells": cells,
        "years": by_rows[4],
        "years_by_golden_rows": {"promote": by_rows, "keep": by_rows},
        "kept_when_unsure": {
            "cells": cells,
            "equal_ones_after_a_year": [{"golden_rows": rows, "promoted": 0.1} for rows in runs.YEARS_ROWS],
        },
        "thresholds": DEFAULTS.model_dump(),
    }


def test_the_page_says_what_holds_and_what_does_not_below_600_rows(found: dict[str, Any], tmp_path: Path) -> None:
    text = page.write(found, tmp_path).read_text()
    for words in (
        "## What holds below 600",
        "BERT_WHEN_UNSURE",
        "Four times in five these 600 rows",
        "No upload brings",
    ):
        assert words in text
    assert (tmp_path / "promotion.svg").read_text().startswith("<?xml")
    assert [bound.limit for bound in runs.bounds(found)] == [0.05, 0.9, 0.98, 0.05]
    json.dumps(found)


def test_a_bound_that_is_missed_is_said(found: dict[str, Any]) -> None:
    worse = [cell | {"promoted": cell["decisions"]} for cell in found["cells"]]
    spoilt = found | {"cells": worse}
    assert [bound.holds for bound in runs.bounds(spoilt)][:3] == [False, True, True]
    assert "**missed**" in page.render(spoilt)


def test_the_page_in_the_docs_is_what_its_template_says_now(found: dict[str, Any]) -> None:
    def words(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if not line.startswith("|") or "`" in line]
        return [re.sub(r"(under |over )?[-+]?\d[\d,.]*( %)?", "#", line) for line in lines]

    assert words((page.DOCS / "promotion.md").read_text()) == words(page.render(found)), "make simulate-promotion"
