"""Carries out what a person says about a challenger: ``python -m include.orchestration.decisions approve --run RUN …``.

``--name`` and ``--reason`` are kept in the ledger. Before a challenger goes live it is compared anew if the champion or
the golden rows have changed since its run; a gate that fails now stops it, unless it is forced. Repeated, an answer
changes nothing, and another one is refused.
"""

import argparse
import getpass
import logging
import sys
from datetime import UTC, datetime

from include import lake, objects
from include.evaluation.evaluate import Evaluation, PersonsDecision, hash_rows
from include.evaluation.words import without_outcome
from include.orchestration import awaiting, canaries, listening, promotion_steps, watching
from include.orchestration.intake_steps import pinned_plan
from include.orchestration.promotion_steps import MOST_EVALUATIONS
from include.orchestration.warehouse import warehouse
from include.registry import approvals, models, standing
from include.registry.approvals import NotConvinced, NothingAwaits, Superseded, Wait
from include.registry.code import code_hash
from include.registry.ledger import Entry
from include.registry.promotion import ChampionChanged, PromotionRefused
from include.settings import settings
from include.training.job import Job, Result

logger = logging.getLogger(__name__)

DAG_ID = "decide_challenger"
VERBS = {"approve": "promote", "reject": "reject"}


def carry_out(
    model_name: str,
    decision: str,
    *,
    run_id: str | None = None,
    version: str | None = None,
    name: str,
    reason: str,
    force: bool = False,
    by: str = "",
) -> str:
    """Makes a challenger that waits the champion ("approve"), or sets its rows aside ("reject"); says what happened.

    The challenger is named by its run or its version. ``by`` is what carries the word of the person called ``name``.
    With ``force`` it becomes champion though a gate fails by now. Raises PromotionRefused, and nothing has changed: but
    a challenger that was built on what is not the champion's any more is superseded, and its rows join the next run.
    """
    wait = _find(model_name, run_id, version)
    if wait.answer is not None:
        return _again(wait, approvals.same(wait.answer, VERBS[decision]))
    said = PersonsDecision(promote=VERBS[decision] == "promote", name=name, reason=reason)
    facts: dict[str, object] = {"by": by} if by else {}
    return _approve(wait, said, facts, force=force) if said.promote else _reject(wait, said, facts)


def _approve(wait: Wait, said: PersonsDecision, facts: dict[str, object], *, force: bool) -> str:
    engine, model_name = warehouse(), wait.asked.model_name
    for _ in range(MOST_EVALUATIONS):
        standing.champion(model_name, engine)  # mends what was done by hand
        if outdated := awaiting.outdated(wait, engine):
            told = awaiting.supersede(wait, outdated, engine)
            listening.announce(f"supersede {wait.asked.dag_run_id}")
            raise Superseded(told)
        evaluation = _evaluation_of_today(wait)
        failed = [gate.name for gate in evaluation.decision.gates if not gate.passed]
        if failed and not force:
            raise NotConvinced(
                f"{_called(wait)} is not promoted. The champion or the golden rows have changed since, and now: "
                f"{without_outcome(evaluation.reason)} It still waits: reject it, or promote it all the same by force "
                f"(FORCE=1). The report: {_own_uri(wait, 'report.html')}"
            )
        entry = _approval(evaluation, wait, said, facts | ({"forced": failed} if failed else {}))
        try:
            given = approvals.answer(entry, engine)
        except ChampionChanged as error:
            logger.warning("%s", error)
            continue
        _conclude(wait, given, evaluation, said)
        if others := awaiting.catch_up(model_name, engine):
            listening.announce(f"approve {wait.asked.dag_run_id}")
        anew = objects.exists(_own_uri(wait, "evaluation.json"))
        how = ["It was compared anew, with the champion and the golden rows of now"] if anew else []
        also = [f"{sentence[0].upper()}{sentence[1:]}" for sentence in others]
        return ". ".join([f"{_called(wait)} is the champion now, {said}", *how, *also])
    raise PromotionRefused(
        f"the champion has changed during each of {MOST_EVALUATIONS} evaluations; nothing was decided"
    )


def _reject(wait: Wait, said: PersonsDecision, facts: dict[str, object]) -> str:
    champion = models.by_alias(wait.asked.model_name, models.CHAMPION)
    entry = wait.asked.model_copy(
        update={
            "verb": "reject",
            "previous_champion": champion.version if champion else None,
            "actor": f"person:{said.name}",
            "reason": said.reason,
            "code_hash": code_hash(),
            "facts": facts,
            "decided_at": datetime.now(UTC),
        }
    )
    given = approvals.answer(entry, warehouse())
    _conclude(wait, given, _newest_evaluation(wait), said)
    back = f"make readmit RUN='{wait.asked.dag_run_id}' takes its rows back"
    return f"{_called(wait)} is {said}. Its rows are set aside; {back}"


def _find(model_name: str, run_id: str | None, version: str | None) -> Wait:
    """The challenger that is meant. Raises NothingAwaits, with those that wait."""
    every = approvals.waits(warehouse(), model_name)
    if run_id or version:
        named = [
            one
            for one in every
            if run_id in (None, "", one.asked.dag_run_id) and version in (None, "", one.asked.version)
        ]
        if named:
            return named[-1]
    waiting = [one for one in every if one.answer is None]
    there = ", ".join(f"version {one.asked.version} of run {one.asked.dag_run_id}" for one in waiting) or "none"
    meant = " and ".join(part for part in (run_id and f"run {run_id}", version and f"version {version}") if part)
    if not meant:
        raise NothingAwaits(f"which challenger? Name its run or its version. Of {model_name} there wait: {there}")
    raise NothingAwaits(f"{meant} of {model_name} does not wait for a person. There wait: {there}")


def _evaluation_of_today(wait: Wait) -> Evaluation:
    """What the gates say with today's champion and golden rows; they are asked again if those have changed."""
    found = _newest_evaluation(wait)
    plan, result, job = pinned_plan(wait.asked.dag_run_id), _result(wait), _job(wait)
    judging = promotion_steps.judging_rows(plan, job.dataset_uri)
    champion = models.by_alias(plan.model_name, models.CHAMPION)
    if not len(judging):
        raise NotConvinced(
            f"{_called(wait)} is not promoted: there is no golden row by which to judge it any more. Later uploads "
            "have other labels for its own; reject it, and its rows can be taken back"
        )
    established = int(judging["established"].sum()) if champion else len(judging)
    same_rows = (
        found.golden_hash == hash_rows(list(judging["text"]), list(judging["label"]))
        and found.established is not None
        and found.established.rows == established
    )
    if same_rows and found.context.champion_version == (champion.version if champion else ""):
        return found
    anew = promotion_steps.measure(plan, result, awaiting.dag_of(wait.asked), "manual")
    promotion_steps.write(anew, _own_uri(wait, "evaluation.json"))
    return anew


def _newest_evaluation(wait: Wait) -> Evaluation:
    """That of the challenger's run, or one that was made when a person was about to approve."""
    uri = _own_uri(wait, "evaluation.json")
    return Evaluation.model_validate_json(
        objects.read_bytes(uri if objects.exists(uri) else _uri(wait, "evaluation.json"))
    )


def _approval(evaluation: Evaluation, wait: Wait, said: PersonsDecision, facts: dict[str, object]) -> Entry:
    entry = Entry.of(
        evaluation,
        version=wait.asked.version,
        actor=f"person:{said.name}",
        code_hash=code_hash(),
        new_anchor=evaluation.decision.new_anchor,
    )
    return entry.model_copy(update={"verb": "promote", "reason": said.reason, "facts": entry.facts | facts})


def _conclude(wait: Wait, given: Entry, evaluation: Evaluation, said: PersonsDecision) -> None:
    """Writes report and card as they are after an answer, and settles the run."""
    answered = evaluation.model_copy(update={"by_person": said})
    promotion_steps.write(answered, _uri(wait, "evaluation.json"))
    if models.by_version(given.model_name, given.version) is not None:
        promotion_steps.write_card(answered, given.version)
    awaiting.finish(wait.asked, given, answered.reason)
    if said.promote:
        canaries.begin(given.model_name, given.version)
        watching.begin(given.model_name, given.version, warehouse(), dag_id=DAG_ID)


def _again(wait: Wait, given: Entry) -> str:
    """What was answered before; finishes what may have been cut off after it."""
    name = given.actor.removeprefix("person:")
    if awaiting.is_unfinished(wait.asked):
        said = PersonsDecision(promote=given.verb != "reject", name=name, reason=given.reason)
        _conclude(wait, given, _newest_evaluation(wait), said)
    return (
        f"nothing to do: {_called(wait)} was {approvals.outcome_of(given)} on {given.decided_at:%F %R} UTC by {name}: "
        f"{given.reason}"
    )


def _called(wait: Wait) -> str:
    return f"{wait.asked.model_name} version {wait.asked.version}"


def _uri(wait: Wait, name: str) -> str:
    return lake.report(awaiting.dag_of(wait.asked), wait.asked.dag_run_id, name)


def _own_uri(wait: Wait, name: str) -> str:
    return lake.report(DAG_ID, wait.asked.dag_run_id, name)


def _job(wait: Wait) -> Job:
    return Job.model_validate(objects.read_json(lake.job(wait.asked.job_id, "job.json")))


def _result(wait: Wait) -> Result:
    return Result.model_validate(objects.read_json(lake.job(wait.asked.job_id, "result.json")))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.decisions", description=__doc__)
    parser.add_argument("decision", choices=list(VERBS))
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--run", help="id of the run whose challenger waits")
    parser.add_argument("--version", help="or the version that it is")
    parser.add_argument("--name", required=True, help="who decides; kept in the ledger")
    parser.add_argument("--reason", required=True, help="why; kept in the ledger")
    parser.add_argument("--force", action="store_true", help="approve though a gate fails by now")
    options = parser.parse_args(arguments)
    try:
        print(
            carry_out(
                options.model,
                options.decision,
                run_id=options.run,
                version=options.version,
                name=options.name,
                reason=options.reason,
                force=options.force,
                by=f"shell:{getpass.getuser()}",
            )
        )
    except PromotionRefused as error:
        print(f"not carried out: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
