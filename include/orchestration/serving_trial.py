"""A challenger is tried as the model server would load it and ask it, before it may become the champion."""
# Only imported inside tasks.

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from include import objects
from include.evaluation.evaluate import Evaluation
from include.evaluation.gates import Gate
from include.evaluation.words import without_outcome
from include.orchestration.forked import ForkedProcess
from include.serving import trial
from include.settings.serving import ServingSettings

logger = logging.getLogger(__name__)

GATE = "serving"
LOOK_SECONDS = 0.05


@dataclass
class _Watch:
    """Ends a process that takes more than the server may."""

    config: ServingSettings
    peak_mib: float = 0.0
    verdict: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def over(self, process: psutil.Process) -> None:
        """Looks at the process until it ends, in a thread."""
        threading.Thread(target=self._look, args=(process,), daemon=True).start()

    def _look(self, process: psutil.Process) -> None:
        deadline = time.monotonic() + 2 * self.config.load_seconds  # to load, and as much again to answer
        try:
            while not self.ended.wait(LOOK_SECONDS):
                self.peak_mib = max(self.peak_mib, process.memory_info().rss / 2**20)
                if self.config.memory_mib and self.peak_mib > self.config.memory_mib:
                    self.verdict = (
                        f"the server needs more than {self.config.memory_mib} MiB for it (BERT_SERVING_MEMORY_MIB)"
                    )
                elif time.monotonic() > deadline:
                    self.verdict = f"the server does not load it and answer within {2 * self.config.load_seconds:.0f} s"
                if self.verdict:
                    process.kill()
                    return
        except psutil.Error:  # it has ended
            return


def attempt(model_uri: str, texts: Sequence[str]) -> Gate:
    """Loads the model at a URI as the server does, in a second process with the server's limits, and asks it.

    Raises what downloading raises: that says nothing of the model.
    """
    config = ServingSettings()
    watch = _Watch(config)
    with objects.local(model_uri) as folder:
        process = ForkedProcess(f"include.serving.trial {model_uri}", lambda: trial.main(str(folder), texts))
        exit_code, line = process.run(logger.info, watch.over)
        watch.ended.set()
    problem, tried = watch.verdict, None
    if not problem and exit_code:
        problem = f"the server cannot load it: {f'killed by signal {-exit_code}' if exit_code < 0 else line}"
    if not problem:
        tried = trial.Tried(**json.loads(line))
        if tried.load_seconds > config.load_seconds:
            problem = (
                f"the server takes {tried.load_seconds:.0f} s to load it, and {config.load_seconds:.0f} s are allowed "
                "(BERT_SERVING_LOAD_SECONDS)"
            )
        elif tried.answer_seconds > config.answer_seconds:
            problem = (
                f"the server takes {tried.answer_seconds:.2f} s for one text, and {config.answer_seconds:g} s are "
                "allowed (BERT_SERVING_ANSWER_SECONDS)"
            )
    took = f"in {tried.load_seconds:.1f} s, answers a text in {1000 * tried.answer_seconds:.0f} ms" if tried else ""
    told = f"the server loads it {took} and takes {watch.peak_mib:.0f} MiB at most"
    return Gate(name=GATE, value=float(not problem), threshold=1.0, passed=not problem, explanation=problem or told)


def with_trial(evaluation: Evaluation, model_uri: str, texts: Sequence[str]) -> Evaluation:
    """An evaluation with the trial as its last gate; a challenger that is refused already is not tried."""
    decision = evaluation.decision
    if not decision.promote:
        return evaluation
    gate = attempt(model_uri, texts)
    update: dict[str, object] = {"gates": [*decision.gates, gate]}
    if not gate.passed:
        others = without_outcome(decision.reason)
        reason = f"Rejected: {GATE} failed, {gate.explanation}. Otherwise it would do: {others}"
        # Its rows are not to blame: they join the next run.
        update |= {"promote": False, "new_anchor": False, "shown_worse": False, "reason": reason}
    return evaluation.model_copy(update={"decision": decision.model_copy(update=update)})
