"""The golden set: the rows that judge a model's versions, and never train one.

It grows with the data. Each change is a new state, written once and never changed, so that what was judged by can be
seen later: ``golden/<model>/states/000007.json`` names a file of rows, a file with the side of every text that was ever
accepted, and the labels' thresholds. Golden rows that come with an upload are *established*, and judge, only once a
version that was trained on that upload became the champion, or a person said so: no upload brings its own judge.

A deployment from before there were states has one frozen file of rows, named in ``golden.json``. They stay golden.
"""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from include import lake, objects
from include.datasets.checks import normalise
from include.datasets.sides import FEWEST_GOLDEN, Side, Sides, Threshold, places
from include.renaming import combine

COLUMNS = ["text", "label", "source", "extra", "origin", "established"]
FROZEN = ""
"""The origin of rows that judge for ever: those of a set that was frozen before there were states, and those that a
person has established."""

BETWEEN = " "
"""Between several origins of one row that is not established."""

MOVED_COLUMNS = ["text", "label", "source", "extra"]
MOST_TRIES = 20
KEPT_SIDES = 2  # states; the sides of all texts are large, and each state has those of the one before it


class GoldenSetError(RuntimeError):
    """The golden set is not what was written, or its rows have leaked into training data."""


@dataclass(frozen=True)
class GoldenSet:
    """One state of a golden set.

    ``rows`` has the columns ``COLUMNS``: ``origin`` is the dataset with which a row came, or several, and
    ``established`` says whether it judges, with the champion that was trained on the dataset ``following``.
    ``moved`` were golden and are to be trained on. ``label_mapping`` has the old names of labels, and what they are
    called since a version that knows them so became the champion. ``sha256`` is the hash of the rows.
    """

    rows: pd.DataFrame
    moved: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=MOVED_COLUMNS, dtype=str))
    sides: Sides = field(default_factory=Sides.none)
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    following: str = ""
    label_mapping: dict[str, str] = field(default_factory=dict)
    number: int = 0

    @property
    def sha256(self) -> str:
        """The hash of the rows as they are written."""
        return _sha256(_parquet(self.rows))

    @property
    def established(self) -> pd.DataFrame:
        """The rows that judge, text and label and more."""
        return self.rows[self.rows["established"]]

    @property
    def normalised(self) -> set[str]:
        """All golden texts in the form in which they are kept out of training."""
        return set(self.rows["text"].map(normalise))

    @property
    def labels(self) -> list[str]:
        """The labels of the established rows, sorted."""
        return sorted(self.established["label"].unique())

    def judging(self, origin: str) -> pd.DataFrame:
        """The established rows and those that came with a dataset."""
        return self.rows[self.rows["established"] | came_with(self.rows, {origin})]

    def renamed(self, mapping: Mapping[str, str]) -> "GoldenSet":
        """With the labels' new names, by a mapping of old ones and by what went live before. No row changes sides.

        A label that was merged of several, and is new, has the lowest of their thresholds.
        """
        combined = combine(self.label_mapping, mapping)
        by_label = dict(self.thresholds)
        for new in {*combined.values()} - self.thresholds.keys():
            merged = [by_label[old] for old, one in combined.items() if one == new and old in by_label]
            if merged:
                by_label[new] = min(merged, key=lambda one: one.golden)
        rows, moved = rename(self.rows, combined), rename(self.moved, combined)
        return replace(self, rows=_ordered(rows), moved=moved, thresholds=by_label, label_mapping=combined)

    def accept(self, rows: pd.DataFrame, origin: str) -> "GoldenSet":
        """With these golden rows, which came with a dataset.

        One that is not established yet, and comes again with its label, came with both: either may go live. With
        another label it came with this one.
        """
        texts = self.rows["text"].map(normalise)
        fixed = self.rows["established"] | came_with(self.rows, {origin})
        new = rows[~rows["text"].map(normalise).isin(set(texts[fixed]))]
        mine = new["text"].map(normalise)
        again = ~fixed & texts.isin(set(mine))
        kept, waiting = self.rows[~again], self.rows[again]
        known = dict(zip(texts[again], zip(waiting["label"], waiting["origin"], strict=True), strict=True))
        origins = []
        for text, label in zip(mine, new["label"], strict=True):
            was, before = known.get(text, (None, ""))
            origins.append(f"{before}{BETWEEN}{origin}" if was == label else origin)
        new = new.reindex(columns=COLUMNS, fill_value="").assign(origin=origins, established=False)
        return replace(self, rows=_ordered(pd.concat([kept, new])))

    def corrections(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those of the rows that give an established one another label than it ``was``: text, label, source, was."""
        mine = self.established.set_index(self.established["text"].map(normalise))["label"]
        was = rows["text"].map(normalise).map(mine)
        return rows.assign(was=was)[was.notna() & (was != rows["label"])][["text", "label", "source", "was"]]

    def corrected(self, corrections: pd.DataFrame) -> "GoldenSet":
        """This set with corrected labels."""
        new = corrections.set_index(corrections["text"].map(normalise))["label"]
        label = self.rows["text"].map(normalise).map(new)
        return replace(self, rows=_ordered(self.rows.assign(label=label.fillna(self.rows["label"]))))

    def vouched(self, origin: str) -> "GoldenSet":
        """This set, whose rows that came with a dataset judge for ever: a person has said that they are right."""
        mine = came_with(self.rows, {origin})
        rows = self.rows.assign(
            origin=self.rows["origin"].mask(mine, FROZEN), established=self.rows["established"] | mine
        )
        return replace(self, rows=rows)

    def as_of(self, ancestry: Sequence[str], golden_max_rows: int | None, *, keep: bool = False) -> "GoldenSet":
        """As it is with a champion whose dataset and those before it are ``ancestry``, the newest first.

        The rows that came with them are established, others are not; or stay what they are, to ``keep`` those. With
        ``golden_max_rows``, labels with more than their share of that give their highest places to training.
        """
        origins = {FROZEN, *ancestry, *(after(one) for one in ancestry[1:])}
        rows = self.rows.assign(established=came_with(self.rows, origins) | (self.rows["established"] & keep))
        state = replace(self, rows=rows, following=next(iter(ancestry), ""))
        if golden_max_rows is None or len(state.established) <= golden_max_rows:
            return state
        return state._shrunk(golden_max_rows)

    def _shrunk(self, golden_max_rows: int) -> "GoldenSet":
        mine = self.established
        sizes = mine["label"].value_counts()
        fewest = sizes.clip(upper=FEWEST_GOLDEN)
        # Only what labels have above the fewest is shared out: repeated, that takes no more from anybody.
        above = int((sizes - fewest).sum())
        share = max(golden_max_rows - int(fewest.sum()), 0) / above if above else 0.0
        at = pd.Series(places(mine["text"])[:, 0], index=mine.index)
        by_label, leaving = dict(self.thresholds), []
        for label, some in at.groupby(mine["label"]):
            kept = int(fewest[label] + int((len(some) - fewest[label]) * share))
            ordered = some.sort_values()
            leaving += list(ordered.index[kept:])
            if kept < len(ordered) and label in by_label:
                middle = float(ordered.iloc[kept - 1 : kept + 1].mean())
                by_label[label] = by_label[label].model_copy(update={"golden": min(by_label[label].golden, middle)})
        moved = self.rows.loc[leaving, MOVED_COLUMNS]
        return replace(
            self,
            rows=_ordered(self.rows.drop(index=leaving)),
            moved=pd.concat([self.moved, moved], ignore_index=True),
            sides=self.sides.trained(list(moved["text"])),
            thresholds=by_label,
        )


def rename(rows: pd.DataFrame, mapping: Mapping[str, str]) -> pd.DataFrame:
    """These rows, labels that ``mapping`` renames with their new names."""
    return rows.assign(label=rows["label"].map(lambda label: mapping.get(label, label))) if mapping else rows


def came_with(rows: pd.DataFrame, origins: Collection[str]) -> "pd.Series[bool]":
    """Whether each golden row came with one of these datasets."""
    wanted = set(origins)
    return rows["origin"].map(lambda mine: not wanted.isdisjoint(mine.split(BETWEEN))).astype(bool)


def after(dataset_id: str) -> str:
    """The origin of rows that came with a run whose dataset is its parent's: the next champion's establishes them."""
    return f"{dataset_id}+"


def read(model_name: str, number: int | None = None) -> GoldenSet | None:
    """A model's golden set as it is now, or one of its states by number, without its sides; None if it has none yet.

    Raises GoldenSetError if a file is not what was written.
    """
    newest = max(objects.find(lake.golden(model_name, "states/")), default=None)
    if number:
        newest = _state_uri(model_name, number)
    if newest is None or number == 0:
        return _frozen(model_name)
    state = objects.read_json(newest)
    contents = {
        name: _written(_content_uri(model_name, sha256), sha256)
        for name, sha256 in state["sha256"].items()
        if not (number and name == "sides")
    }
    return GoldenSet(
        rows=pd.read_parquet(io.BytesIO(contents["rows"])),
        moved=pd.read_parquet(io.BytesIO(contents["moved"])),
        sides=Sides.from_bytes(contents["sides"]) if "sides" in contents else Sides.none(),
        thresholds={label: Threshold.model_validate(one) for label, one in state["thresholds"].items()},
        following=state["following"],
        label_mapping=state.get("label_mapping", {}),
        number=state["number"],
    )


def nothing() -> GoldenSet:
    """A golden set without a row."""
    return GoldenSet(pd.DataFrame(columns=COLUMNS).astype({"established": bool}))


def change(
    model_name: str, edit: Callable[[GoldenSet], GoldenSet], because: str, *, of: int | None = None
) -> GoldenSet:
    """Makes a new state of the newest, unless nothing changes; returns the one that is the newest then.

    If somebody else is quicker, ``edit`` is called again with what is there then; but if it is ``of`` a state by its
    number, and another one is the newest, GoldenSetError is raised.
    """
    for _ in range(MOST_TRIES):
        last = read(model_name) or nothing()
        if of not in (None, last.number):
            break
        new = replace(edit(last), number=last.number + 1)
        if last.number and _decisive(new) == _decisive(last):
            return last
        for content in _contents(new).values():
            objects.write_bytes(_content_uri(model_name, _sha256(content)), content)
        facts = {
            "number": new.number,
            "because": because,
            "at": datetime.now(UTC),
            "rows": len(new.rows),
            "established": int(new.rows["established"].sum()),
            "labels": new.labels,
            **_decisive(new),
        }
        if objects.create_json(_state_uri(model_name, new.number), facts):
            _forget_sides(model_name, new.number - KEPT_SIDES)
            return new
    raise GoldenSetError(f"the golden set of {model_name} was changed {MOST_TRIES} times meanwhile; try again")


def follow(
    model_name: str,
    ancestry: Sequence[str],
    because: str,
    golden_max_rows: int | None = None,
    *,
    keep: bool = False,
    mapping: Mapping[str, str] | None = None,
) -> GoldenSet:
    """Establishes the rows that came with a champion's datasets, and no others; see ``GoldenSet.as_of``.

    ``mapping`` has the labels that the champion's dataset has renamed: from now on that holds. Called when a champion
    changes; repeated, it changes nothing.
    """

    def edit(last: GoldenSet) -> GoldenSet:
        named = last.renamed(mapping) if mapping else last
        return named.as_of(ancestry, golden_max_rows, keep=keep)

    return change(model_name, edit, because)


def adopt(model_name: str, datasets: Iterable[pd.DataFrame]) -> GoldenSet:
    """Makes the first state of a set that was frozen before there were states; does nothing if there is one.

    ``datasets`` are the snapshots that versions were trained on, the champion's first: their rows stay on their sides.
    """
    frozen = read(model_name)
    assert frozen is not None
    sides = frozen.sides.decided(list(frozen.rows["text"]), [Side.GOLDEN] * len(frozen.rows))
    by_label: dict[str, Threshold] = {}
    for snapshot in datasets:
        sides = sides.decided(list(snapshot["text"]), sides_of(snapshot))
        validating = (snapshot["split"] == "validation").groupby(snapshot["label"]).mean()
        for label, mine in frozen.rows.groupby("label")["text"]:
            highest = float(places(mine)[:, 0].max())
            by_label.setdefault(str(label), Threshold(golden=highest, validation=float(validating.get(label, 0.0))))
    adopted = replace(frozen, sides=sides, thresholds=by_label)
    return change(model_name, lambda last: adopted if last.number == 0 else last, "sides are kept from now on")


def sides_of(snapshot: pd.DataFrame) -> list[Side]:
    """The sides of a snapshot's rows, from its column split."""
    return [Side.VALIDATION if split == "validation" else Side.TRAIN for split in snapshot["split"]]


def check_no_leak(texts: pd.Series, golden: GoldenSet, where: str) -> None:
    """Raises GoldenSetError if any of the texts is in the golden set. ``where`` names the texts in the message."""
    leaked = texts[texts.map(normalise).isin(golden.normalised)]
    if len(leaked):
        raise GoldenSetError(
            f"{len(leaked)} golden texts are in {where}, for example {leaked.iloc[0][:80]!r}; "
            "a model trained on them would be judged by what it has seen"
        )


def _frozen(model_name: str) -> GoldenSet | None:
    lock_uri = lake.golden(model_name, "golden.json")
    if not objects.exists(lock_uri):
        return None
    lock = objects.read_json(lock_uri)
    rows = pd.read_parquet(io.BytesIO(_written(lock["uri"], lock["sha256"])))
    rows = rows.reindex(columns=COLUMNS, fill_value="").assign(origin=FROZEN, established=True)
    return GoldenSet(_ordered(rows))


def _written(uri: str, sha256: str) -> bytes:
    content = objects.read_bytes(uri)
    found = _sha256(content)
    if found != sha256:
        raise GoldenSetError(
            f"{uri} was changed after it was written (hash {found[:12]}, written {sha256[:12]}); "
            "restore the file: scores on other rows cannot be compared"
        )
    return content


def _forget_sides(model_name: str, number: int) -> None:
    if number > 0:
        mine, *later = (
            objects.read_json(_state_uri(model_name, at))["sha256"]["sides"] for at in range(number, number + 3)
        )
        if mine not in later:
            objects.delete(_content_uri(model_name, mine))


def _contents(state: GoldenSet) -> dict[str, bytes]:
    return {"rows": _parquet(state.rows), "moved": _parquet(state.moved), "sides": state.sides.to_bytes()}


def _decisive(state: GoldenSet) -> dict[str, Any]:
    return {
        "sha256": {name: _sha256(content) for name, content in _contents(state).items()},
        "thresholds": {label: one.model_dump() for label, one in sorted(state.thresholds.items())},
        "following": state.following,
        "label_mapping": state.label_mapping,
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["text", "label"], ignore_index=True)[COLUMNS]


def _parquet(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _content_uri(model_name: str, sha256: str) -> str:
    return lake.golden(model_name, f"{sha256[:16]}.parquet")


def _state_uri(model_name: str, number: int) -> str:
    return lake.golden(model_name, f"states/{number:06d}.json")
