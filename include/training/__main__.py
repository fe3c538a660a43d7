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

from include import lake
from include.training.errors import Stopped, TrainingError
from include.training.job import Job
from include.training.stopping import StopRequest, follow_parent

logger = logging.getLogger("include.training")


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
        print(train(options.job_uri, stop), flush=True)
    except Stopped as stopped:
        logger.warning("stopped before the end; the same command resumes the job")
        return 128 + stopped.signum
    except Exception as error:
        logger.debug("traceback", exc_info=True)
        named = isinstance(error, TrainingError)
        logger.error("%s", error if named else f"{type(error).__name__}: {error} (--log-level DEBUG for the traceback)")
        return 1
    return 0


def train(job_uri: str, stop: StopRequest) -> str:
    """Makes sure that a job has its result.

    Args:
        job_uri: Of its job.json.
        stop: How to end early.

    Returns:
        The URI of result.json.
    """
    folder = job_uri.rsplit("/", 1)[0]
    result = f"{folder}/result.json"
    if lake.exists(result):
        logger.info("the job is done already")
        return result
    job = _read_job(job_uri)
    from include.training import train as trainer

    trainer.run(job, folder, stop)
    return result


def _read_job(uri: str) -> Job:
    try:
        return Job.model_validate(lake.read_json(uri))
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
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
