"""Brings a version back from its backup: ``python -m include.orchestration.restore --version 3 --reason "…"``.

Its files are compared with their hashes and copied back where they differ. A version that was deleted in MLflow is
registered again, under a new number. Then it becomes the champion by a rollback, which loads it and lets it answer the
golden rows first, and which the ledger keeps. Without ``--version`` it says what backups there are.
"""

import argparse
import getpass
import logging
import sys

from include.orchestration import rollback
from include.registry import backups, models, smoke
from include.registry.backups import Backup, BackupError
from include.registry.models import CHAMPION
from include.registry.promotion import PromotionRefused
from include.settings import settings

logger = logging.getLogger(__name__)


def restore(model_name: str, version: str, *, actor: str, reason: str, champion: bool = True) -> str:
    """Brings a version back, and makes it the champion unless it is; says what was done. Repeated, it does nothing.

    Raises BackupError if there is no sound backup, PromotionRefused or SmokeTestFailed if it cannot become champion.
    """
    backup = backups.require(model_name, version)
    found = models.by_version(model_name, version)
    if found is not None and found.ready:
        wrong = backups.bring_back(backup, found.uri)
        told = (
            f"version {version}: {', '.join(wrong)}: brought back" if wrong else f"version {version} is as its backup"
        )
    else:
        found = registered_again(backup)
        told = f"version {version} was deleted in MLflow: it is version {found.version} now"
    now = models.by_alias(model_name, CHAMPION)
    if not champion or (now is not None and now.version == found.version):
        return told
    return f"{told}. {rollback.roll_back(model_name, actor=actor, reason=reason, to_version=found.version)}"


def registered_again(backup: Backup) -> models.ModelVersion:
    """A backup's files as a version; the same one when it is repeated."""
    tags = {models.JOB_ID: f"backup-of-{backup.version}", models.DECISION: "restored"} | {
        name: backup.tags[name] for name in (models.JOB_ID, "dataset_id", "base_model") if backup.tags.get(name)
    }
    version = models.register(backup.model_name, backup.uri, backup.mlflow_run_id, tags)
    found = models.by_version(backup.model_name, version)
    if found is None:
        raise BackupError(f"{backup.model_name} version {version} was deleted while it was registered again")
    return found


def _list(model_name: str) -> str:
    found = backups.known(model_name)
    lines = [f"version {one.version}  {one.made_at:%F %R} UTC  {len(one.files)} files  {one.uri}" for one in found]
    return "\n".join(lines) or f"{model_name} has no backups yet: model_retraining_dag makes them"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.restore", description=__doc__)
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--version", help="whose backup; without it all backups are listed")
    parser.add_argument("--reason", help="why; kept in the ledger")
    parser.add_argument("--actor", default=getpass.getuser(), help="who; kept in the ledger (%(default)s)")
    parser.add_argument("--files-only", action="store_true", help="the champion stays who it is")
    options = parser.parse_args(arguments)
    if not options.version:
        print(_list(options.model))
        return 0
    if not options.reason:
        parser.error("--reason is needed: why is it brought back?")
    try:
        print(
            restore(
                options.model,
                options.version,
                actor=options.actor,
                reason=options.reason,
                champion=not options.files_only,
            )
        )
    except (BackupError, PromotionRefused, smoke.SmokeTestFailed) as error:
        print(f"not restored: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
