"""What looks like a credential, and so must not stand where everyone may read it."""

import re

SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|(_|^)(PASS|PWD)$|TOKEN(_|$)|CREDENTIAL|WEBHOOK|(ACCESS|API|FERNET|PRIVATE)_KEY"
)
"""Matches the names of variables that carry secrets."""

SECRET_FIELD = re.compile(r'"(password|token|secret|private_key|client-key-data)"\s*:\s*"[^"]')
"""Matches a secret inside a connection or a key that is written as JSON."""

LOGIN = re.compile(r"://[^/\s]*@")
"""Matches the login of an URL: what stands between ``//`` and ``@``."""


def is_credential(name: str, value: str) -> bool:
    """Whether a variable looks like one that carries a secret; a path to a file that holds one does not."""
    is_path = value.startswith("/") and (name.endswith("_FILE") or name == "GOOGLE_APPLICATION_CREDENTIALS")
    return bool((SECRET_NAME.search(name.upper()) and not is_path) or LOGIN.search(value) or SECRET_FIELD.search(value))
