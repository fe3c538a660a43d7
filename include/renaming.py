"""Labels that were renamed or merged: what a mapping of old names to new ones may be, and how one follows another."""

import json
from collections.abc import Iterable, Mapping

EXAMPLE = '{"billing": "invoices"}'


def parse(value: object) -> object:
    """A mapping as it stands in a variable, a JSON object. Raises ValueError if it is none, or names a label twice."""
    if not isinstance(value, str):
        return value

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice = next((old for at, (old, _) in enumerate(pairs) if old in dict(pairs[:at])), None)
        if twice is not None:
            raise ValueError(f"it maps {twice!r} twice")
        return dict(pairs)

    try:
        return json.loads(value, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"it should be a JSON object of old and new names such as {EXAMPLE} ({error})") from error


def check(mapping: Mapping[str, str]) -> dict[str, str]:
    """The mapping with white space around names taken away. Raises ValueError for one that makes no sense."""
    tidy = {" ".join(old.split()): " ".join(new.split()) for old, new in mapping.items()}
    if not all([*tidy, *tidy.values()]):
        raise ValueError(f"a name is empty; it maps old names to new ones, such as {EXAMPLE}")
    if len(tidy) < len(mapping):
        raise ValueError("it maps a name twice, once with other white space")
    for old, new in tidy.items():
        if new not in tidy:
            continue
        ends = _follow(new, tidy)
        if ends is None:
            raise ValueError(f"{old!r} → {new!r} goes round in a circle; an old name must not be a new one, too")
        raise ValueError(f"{old!r} → {new!r} → {tidy[new]!r} is a chain; map each old name to the last one: {ends!r}")
    return tidy


def check_allowed(mapping: Mapping[str, str], allowed: Iterable[str]) -> None:
    """Raises ValueError if a new name is none of the labels that are allowed, and no allowed one is renamed to it.

    Without any, all are allowed.
    """
    labels = set(allowed)
    if not labels:
        return
    known = labels | {mapping.get(label, label) for label in labels}
    if odd := sorted(set(mapping.values()) - known):
        raise ValueError(f"{odd[0]!r} is none of BERT_LABELS, so all its rows would be rejected; add it there")


def combine(live: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """What each old name means: by the mapping that went live, and by the one that is wanted on top of it.

    What went live stays, also if it is not wanted any more; its new names may be renamed again. A label is given its
    former name back by the reverse of what renamed it; any other wish for a former name means what that became.
    """
    given_back = {old for old, new in live.items() if wanted.get(new) == old}
    stays = {old: wanted.get(new, new) for old, new in live.items() if old not in given_back}
    follows = {old: stays.get(new, new) for old, new in wanted.items()}
    return dict(sorted({**follows, **stays}.items()))


def unheeded(live: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """A sentence for each wish that ``combine`` does not fulfil."""
    means = combine(live, wanted)
    return [
        f"{old!r} is not called {new!r}: it was renamed to {live[old]!r} before, and that went live; map {live[old]!r}"
        if old in live
        else f"{old!r} is called {means[old]!r}, for {new!r} was renamed to that before, and that went live"
        for old, new in wanted.items()
        if means[old] != new
    ]


def _follow(name: str, mapping: Mapping[str, str]) -> str | None:
    """Where a name leads in the end; None if that is a circle."""
    seen: set[str] = set()
    while name in mapping:
        if name in seen:
            return None
        seen.add(name)
        name = mapping[name]
    return name
