"""The model server's command: ``python -m include.serving``.

It answers with the registry's champion, over HTTP; /docs shows how to ask. Settings are ``BERT_SERVING_*``.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from include.settings import settings
from include.settings.serving import ServingSettings

logger = logging.getLogger("include.serving")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    config = ServingSettings()
    parser = argparse.ArgumentParser(prog="python -m include.serving", description=__doc__)
    parser.add_argument("--host", default=config.host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=config.port, help="(%(default)s)")
    parser.add_argument("--cache", default=config.cache, help="folder for champions' files (%(default)s)")
    options = parser.parse_args(arguments)
    config = config.model_copy(update={"cache": options.cache})
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("include").setLevel("INFO")
    place = settings().environment
    if place != "local" and not config.tokens.get_secret_value() and not config.open:
        print(
            f"The server does not start: BERT_ENVIRONMENT is {place}, and anyone could ask. Set SERVING_TOKENS to one "
            "or more tokens (python -c 'import secrets; print(secrets.token_hex(32))'), or BERT_SERVING_OPEN=true.",
            file=sys.stderr,
        )
        return 2
    # Read when torch is loaded, with the first model. Threads that wait by spinning, as OpenMP's do otherwise, take six
    # times the processor from each other where cores are shared (docs/serving.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Python's lock changes hands after a tenth of the usual time: a version that is loaded would hold answers up.
    sys.setswitchinterval(0.0005)
    import uvicorn
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

    from include.serving.app import build
    from include.serving.server import ModelServer

    # A registry that is down must be known within one look; the next look is the retry.
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)
    MLFLOW_HTTP_REQUEST_TIMEOUT.set(5)
    names = config.models or (settings().model_name,)
    app = build(ModelServer(config, names))
    logger.info("serving %s at http://%s:%d, see /docs", ", ".join(names), options.host, options.port)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
