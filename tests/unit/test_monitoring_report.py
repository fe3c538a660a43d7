"""A day's page: what it shows, and that it asks nobody for anything."""

import re
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from include.monitoring.answers import Adding, DaySums
from include.monitoring.assessment import assess
from include.monitoring.checks import Check, drift_checks
from include.monitoring.domain import Difference
from include.monitoring.report import Day, write_day_report

DAY = date(2026, 3, 30)
SCRIPT = "<script>alert(1)</script>"


def sums(day: date, parcel: float) -> DaySums:
    dice = np.random.default_rng(day.toordinal())
    adding = Adding(("card", SCRIPT))
    true = dice.random(300) < parcel
    shares = np.where(true[:, None], [0.05, 0.95], [0.95, 0.05])
    adding.add(shares, dice.integers(20, 80, 300))
    return adding.of_day(day, "2", of=300, seen="")


def write(folder: Path, kept: list[DaySums]) -> str:
    assessed = assess(kept, 1.0)
    checks = [
        Check(name="predictions.empty_texts", value=0.5, threshold=0.01, verdict="failed", told=f"of {SCRIPT}"),
        *drift_checks(assessed),
    ]
    history = [
        (one.day, Check(name=name, value=value, threshold=None, verdict="passed", told=""))
        for number, one in enumerate(kept)
        for name, value in {"predictions.rows": one.texts, "accuracy.live": 0.9, "accuracy.live_low": 0.8,
                            "accuracy.live_high": 0.95 if number % 2 else None, "drift.score": 0.3}.items()
    ]  # fmt: skip
    found = Day(
        model="m", day=DAY, version="2", headline="Drift: retrain", sentence="because", checks=checks, history=history,
        assessment=assessed, kept=kept, difference=Difference(0.9, ("parcel",), (SCRIPT,), ()),
        events={"another champion": [DAY - timedelta(days=9)], "drift acted on": []}, ids={"Model": "m"},
    )  # fmt: skip
    return write_day_report(found, folder).read_text()


def test_a_page_shows_drift_checks_and_what_has_changed_escaped_and_without_a_request(tmp_path: Path) -> None:
    kept = [sums(DAY - timedelta(days=ago), 0.5 if ago < 3 else 0.2) for ago in reversed(range(40))]
    page = write(tmp_path, kept)
    assert "Drift: retrain" in page
    assert ">drift</td>" in page
    assert "predictions.empty texts" in page
    assert page.index("predictions.empty texts") > page.index("What has changed")
    assert "&lt;script&gt;alert(1)" in page
    assert SCRIPT not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"volume.png", "score.png", "accuracy.png", "labels.png"}


def test_a_first_day_without_a_champion_has_a_page(tmp_path: Path) -> None:
    found = Day("m", DAY, "", "No champion", "…", [], [], None, [], None, {}, {})
    page = write_day_report(found, tmp_path).read_text()
    assert "No champion" in page
    assert "0 checks, 0 failed" in page
