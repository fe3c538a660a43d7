"""What the console asks of the model server."""

from typing import Any

import requests

from include.settings.console import ConsoleSettings
from plugins.console.access import Refused
from plugins.console.catalogue import of_request

SECONDS = 10.0


def ask(path: str, body: dict[str, Any]) -> Any:
    """The server's answer to a request. Raises Refused if there is no server, or it will not."""
    config, say = ConsoleSettings(), of_request()
    if not config.serving_url:
        raise Refused(say("No model server is set: BERT_CONSOLE_SERVING_URL names it."), 409)
    token = config.serving_token.get_secret_value()
    try:
        answer = requests.post(
            f"{config.serving_url.rstrip('/')}/{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=SECONDS,
        )
    except requests.RequestException as error:
        raise Refused(say("The model server does not answer ({name}).", name=type(error).__name__), 502) from error
    if not answer.ok:
        raise Refused(
            say("The model server answers {code}: {text}", code=answer.status_code, text=answer.text[:300]), 502
        )
    return answer.json()
