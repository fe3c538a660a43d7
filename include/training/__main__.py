"""The trainer's command: ``python -m include.training s3://…/jobs/<job_id>/job.json``.

Exit codes: 0 the job's result.json is there (also when it was before); 1 the job cannot be trained, the last line says
why; 2 wrong usage; 130 and 143 stopped by SIGINT or SIGTERM, with what was learnt in a checkpoint: run the same command
again to resume.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from include import objects
from include.training import launched
from include.training.errors import Stopped, TrainingError
from include.training.job import Job
from include.training.stopping import StopRequest, follow_parent

logger = logging.getLogger("include.training")

HINT = "--log-level DEBUG for the traceback"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parent = os.getppid()
    options = _options(arguments)
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("include").setLevel(options.log_level)
    stop = StopRequest()
    stop.listen()
    if options.stop_with_parent:
        follow_parent(parent)
    try:
        return _train(options, stop)
    except Stopped as stopped:
        logger.warning("stopped before the end; the same command resumes the job")
        return 128 + stopped.signum
    except Exception as error:
        logger.debug("traceback", exc_info=True)
        if launched.by_launcher():  # one process's failure is the others' too; the launcher says which came first
            from include.training.processes import report_failure

            report_failure(error)
        else:
            named = isinstance(error, TrainingError)
            logger.error("%s", error if named else f"{type(error).__name__}: {error} ({HINT})")
        return 1


def _train(options: argparse.Namespace, stop: StopRequest) -> int:
    """Makes sure that the job has its result, here or in processes that this one starts."""
    folder = options.job_uri.rsplit("/", 1)[0]
    result = f"{folder}/result.json"
    if objects.exists(result):
        logger.info("the job is done already")
    else:
        job = _read_job(options.job_uri)
        from include.training import processes

        if not launched.by_launcher() and (number := processes.count(options.processes)) > 1:
            arguments = [options.job_uri, "--log-level", options.log_level, "--stop-with-parent"]
            return processes.launch(number, ["include.training", *arguments])
        from include.training import train

        train.run(job, folder, stop)
    if launched.is_first():
        print(result, flush=True)
    return 0


def _read_job(uri: str) -> Job:
    try:
        return Job.model_validate(objects.read_json(uri))
    except FileNotFoundError:
        raise TrainingError(f"no job at {uri}: submit it first") from None
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise TrainingError(f"{uri} is no valid job: {details}") from error


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m include.training", description="Trains a job, or resumes it, or finds it done."
    )
    parser.add_argument("job_uri", help="URI of job.json: s3://…/jobs/<job_id>/job.json or file:///…")
    parser.add_argument(
        "--stop-with-parent",
        action="store_true",
        help="checkpoint and stop when the starting process ends",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        help="processes that train together on this machine (default: one per GPU, or one)",
    )
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
