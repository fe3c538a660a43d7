"""The drift test: what it alarms at, what it does not, and what it says."""

import itertools

import numpy as np
import pytest

from include.monitoring import drift
from include.monitoring.days import Days, day_of, join
from include.monitoring.drift import Reference, assess

LABELS = ("billing", "card", "login", "parcel")
MIX = np.array([0.4, 0.3, 0.2, 0.1])


class Traffic:
    """Answers of a champion that is right nine times of ten, to texts whose labels go up and down from day to day.

    ``lasting`` is how much a day's ups and downs are like the next day's, ``weekdays`` how much weekdays differ.
    """

    def __init__(
        self, seed: int, texts: int = 500, ups_and_downs: float = 0.1, lasting: float = 0.0, weekdays: float = 0.0
    ) -> None:
        self.dice = np.random.default_rng(seed)
        self.texts, self.ups_and_downs, self.lasting = texts, ups_and_downs, lasting
        self.weekdays = itertools.cycle(self.dice.normal(0, weekdays, (7, len(MIX))))
        self.up = self.dice.normal(0, ups_and_downs, len(MIX))

    def day(self, moved: float = 0.0, unsure: float = 0.0, longer: float = 0.0) -> Days:
        new = self.dice.normal(0, self.ups_and_downs, len(MIX))
        self.up = self.lasting * self.up + np.sqrt(1 - self.lasting**2) * new
        mix = MIX * np.exp(next(self.weekdays) + self.up)
        mix = (1 - moved) * mix / mix.sum() + moved * np.array([0, 0, 0, 1])
        true = self.dice.choice(len(MIX), self.texts, p=mix)
        sure = np.where(self.dice.random(self.texts) < unsure, 0.4, self.dice.uniform(0.85, 0.99, self.texts))
        answers = np.repeat((1 - sure)[:, None] / 3, 4, 1)
        answers[np.arange(self.texts), true] = sure
        return day_of(LABELS, answers, np.exp(self.dice.normal(3.5 + longer, 0.5, self.texts)))

    def days(self, number: int, **change: float) -> Days:
        return join([self.day(**change) for _ in range(number)])


def alarms(traffic: Traffic, reference: Reference, days: int, **change: float) -> list[drift.Comparison]:
    return [one for one in assess(reference, traffic.days(days, **change)) if one.alarms]


def test_two_thousand_days_without_a_drift_give_at_most_one_false_alarm_a_year() -> None:
    alarmed = days = 0
    for seed in range(6):
        lively = {"ups_and_downs": 0.25, "lasting": 0.7, "weekdays": 0.2}
        traffic = Traffic(seed, (100, 500, 3_000)[seed % 3], **({"ups_and_downs": 0.05}, lively)[seed % 2])
        reference = Reference(traffic.days(28))
        seen = traffic.days(340 + 28)
        for end in range(28, 368):
            alarmed += any(one.alarms for one in assess(reference, seen[end - 28 : end]))
            days += 1
    assert days >= 2_000
    assert alarmed <= days / 365


def test_a_fifth_of_the_texts_moved_to_one_label_is_found_within_three_days_and_named() -> None:
    traffic = Traffic(1)
    reference = Reference(traffic.days(28))
    (first, *_) = alarms(traffic, reference, 3, moved=0.2)
    assert first.window == 3
    assert "parcel" in first.told
    assert "was 1" in first.told


@pytest.mark.parametrize(
    ("change", "name", "told"),
    [
        ({"unsure": 0.3}, "confidence", "mean confidence 0.7"),
        ({"longer": 0.5}, "log_characters", "mean log_characters 4"),
    ],
)
def test_a_changed_measure_is_found_and_named(change: dict[str, float], name: str, told: str) -> None:
    traffic = Traffic(2)
    reference = Reference(traffic.days(28))
    found = {one.name: one.told for one in alarms(traffic, reference, 7, **change)}
    assert told in found[name]


def test_one_odd_day_is_no_drift() -> None:
    traffic = Traffic(3)
    reference = Reference(traffic.days(28))
    recent = join([*[traffic.day() for _ in range(6)], traffic.day(moved=0.5)])
    odd = assess(reference, recent)
    assert odd[0].p < odd[0].level, "it would be one, counted with the others"
    assert not any(one.alarms for one in odd)


def test_lively_days_are_not_taken_for_a_drift_that_calm_days_would_show() -> None:
    calm, lively = Traffic(4, ups_and_downs=0.02), Traffic(4, ups_and_downs=0.4)
    moved = Traffic(5, ups_and_downs=0.02).days(7, moved=0.1)
    by_calm, by_lively = (assess(Reference(traffic.days(28)), moved) for traffic in (calm, lively))
    assert any(one.alarms for one in by_calm)
    assert not any(one.alarms for one in by_lively)


def test_how_long_ups_and_downs_last_is_seen_whatever_weekdays_do() -> None:
    def seen(lasting: float, weekdays: float) -> float:
        worlds = [Traffic(seed, 2_000, 0.25, lasting, weekdays) for seed in range(20)]
        return float(np.mean([Reference(one.days(28)).lasting for one in worlds]))

    assert seen(0.3, 0.0) < 0.5
    assert seen(0.7, 0.0) > 0.6
    assert seen(0.7, 0.4) == pytest.approx(seen(0.7, 0.0), abs=0.03)


def test_too_few_texts_or_days_are_not_tested() -> None:
    traffic = Traffic(6, texts=10)
    reference = Reference(traffic.days(28))
    assert {one.window for one in assess(reference, traffic.days(7))} == set()
    assert {one.window for one in assess(reference, traffic.days(14))} == {14}
    assert {one.window for one in assess(reference, traffic.days(14), least_texts=10)} == {3, 7, 14}
    with pytest.raises(ValueError, match="a reference of 6 days is too short: it takes 7"):
        Reference(traffic.days(6))


def test_a_rate_of_more_false_alarms_makes_each_test_easier() -> None:
    traffic = Traffic(7)
    reference, recent = Reference(traffic.days(28)), traffic.days(28)
    once, monthly = (assess(reference, recent, rate=rate)[0].level for rate in (1, 12))
    assert once == pytest.approx(1 / 365 / 16)
    assert monthly == pytest.approx(12 * once)


def test_days_without_a_text_and_labels_that_never_occur_do_no_harm() -> None:
    traffic = Traffic(8)
    empty = day_of(LABELS, np.empty((0, 4)), [])
    reference = Reference(join([*[traffic.day() for _ in range(27)], empty]))
    found = assess(reference, join([traffic.day(), empty, traffic.day(), empty]))
    assert found
    assert all(0 <= one.p <= 1 for one in found)


def test_days_of_champions_with_other_labels_are_not_joined() -> None:
    other = day_of(("yes", "no"), [[0.5, 0.5]], [3])
    with pytest.raises(ValueError, match="different labels: score the older ones again first"):
        join([Traffic(9).day(), other])
