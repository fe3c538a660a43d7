"""What a server sees of two versions side by side, and when a canary has failed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from include.settings.serving import ServingSettings

FEWEST_ERRORS = 3
FEWEST_TEXTS = 50  # that both versions have answered, before their difference says something


@dataclass
class Bake:
    """A version beside the one that answers most requests.

    Attributes:
        config: what a canary may do.
        requests: that it was asked.
        errors: requests that it could not answer; the other version did.
        texts: that both have answered.
        different: of them, how many with other labels.
    """

    config: ServingSettings
    requests: int = 0
    errors: int = 0
    texts: int = 0
    different: int = 0
    _milliseconds: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})

    def answered(self, milliseconds: float, *, by_canary: bool) -> None:
        """Counts a request that either version has answered."""
        self.requests += by_canary
        self._milliseconds[by_canary].append(milliseconds)
        del self._milliseconds[by_canary][:-1000]

    def failed(self) -> None:
        """Counts a request that the canary could not answer."""
        self.requests += 1
        self.errors += 1

    def compared(self, labels: Sequence[str], others: Sequence[str]) -> int:
        """Counts texts that both have answered; returns how many got different labels."""
        different = sum(map(str.__ne__, labels, others))
        self.texts += len(labels)
        self.different += different
        return different

    def verdict(self) -> str:
        """Why a canary is not to answer any more; empty if it may."""
        config = self.config
        if self.errors >= FEWEST_ERRORS and self.errors > config.canary_errors * self.requests:
            return f"{self.errors} of {self.requests} requests failed (BERT_SERVING_CANARY_ERRORS)"
        if self.texts >= FEWEST_TEXTS and self.different > config.canary_disagreement * self.texts:
            return (
                f"it answers {self.different} of {self.texts} texts otherwise than the version before "
                "(BERT_SERVING_CANARY_DISAGREEMENT)"
            )
        mine, others = (_median(self._milliseconds[one]) for one in (True, False))
        if min(map(len, self._milliseconds.values())) >= FEWEST_TEXTS and mine > config.canary_slower * others:
            return f"it takes {mine:.0f} ms, and the version before {others:.0f} ms (BERT_SERVING_CANARY_SLOWER)"
        return ""


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0
