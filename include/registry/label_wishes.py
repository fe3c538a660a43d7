"""What persons have said of labels, as the ledger has it: new ones are let in, old ones renamed or merged.

They hold for each run that begins later, beside ``BERT_ADMITTED_LABELS`` and ``BERT_LABEL_MAPPING``. A mapping is for
good once a model that learnt by it is promoted; until then it can be withdrawn.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Engine

from include.registry import ledger
from include.registry.ledger import Verb
from include.renaming import combine

ADMIT: Verb = "admit_label"
MERGE: Verb = "merge_label"
WITHDRAW: Verb = "withdraw_label"
LABEL, INTO = "label", "into"
MOST = 10_000


@dataclass(frozen=True)
class Wishes:
    """The labels that were admitted, and old names of labels with the new ones that they are to count as."""

    admitted: tuple[str, ...] = ()
    mapping: dict[str, str] = field(default_factory=dict)


def of_model(engine: Engine, model_name: str) -> Wishes:
    """What holds now of all that was said."""
    said = ledger.entries(engine, model_name, verbs=(ADMIT, MERGE, WITHDRAW), limit=MOST)
    return following((entry.verb, entry.facts) for entry in reversed(said))


def following(said: Any) -> Wishes:
    """What holds after pairs of a verb and its facts, the first first."""
    admitted: dict[str, None] = {}
    mapping: dict[str, str] = {}
    for verb, facts in said:
        label = facts[LABEL]
        if verb == ADMIT:
            admitted[label] = None
        elif verb == MERGE:
            mapping = combine({old: new for old, new in mapping.items() if old != label}, {label: facts[INTO]})
        else:
            admitted.pop(label, None)
            mapping.pop(label, None)
    return Wishes(tuple(admitted), mapping)
