"""Looks for secrets in a container image: in every layer, for what a later one deletes is still delivered.

What is looked for: files that have no place in an image by their name, secrets in the content of all that is no
installed package, and in the variables and commands that the image's configuration keeps.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from detect_secrets.core.scan import scan_line
from detect_secrets.settings import transient_settings

from include.settings.detection import is_credential

FORBIDDEN = re.compile(
    r"""(^|/)(
        .*\.env(\..+)? | .*kubeconfig.* | \.kube/.* | id_(rsa|ecdsa|ed25519) | \.aws/.* | \.netrc | \.pypirc
        | .*\.tfvars | .*\.tfstate | airflow_settings\.yaml | airflow\.cfg | .*\.(pem|key|p12|jks) | \.git/config
    )$""",
    re.VERBOSE,
)
PACKAGES = re.compile(
    r"^(usr/(bin|sbin|lib\w*|share|include)/|usr/local/(?!airflow/)\w+/|lib|bin/|sbin/|etc/(ssl|ca-certificates)/|var/lib/)"
)
"""Debian's and Python's packages: public, and full of keys made up for tests and manuals."""

OURS = re.compile(r"^usr/local/airflow/(dags|include|plugins)/.*(?<!\.py)$")
"""What is no code there is searched for assignments as well."""

LARGEST = 1 << 20  # bytes of a file that is read; nobody types a larger one

# Those with a form of their own; what merely looks random would find every hash in requirements.txt.
DETECTORS = (
    *("AWSKeyDetector", "AzureStorageKeyDetector", "ArtifactoryDetector", "BasicAuthDetector", "GitHubTokenDetector"),
    *("GitLabTokenDetector", "JwtTokenDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector"),
    *("PypiTokenDetector", "SendGridDetector", "SlackDetector", "StripeDetector", "TwilioKeyDetector"),
)
OTHER_FORMS = {
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "Key of a Kubeconfig": re.compile(r"client-key-data:\s*\S"),
    "AWS Secret Key": re.compile(r"(?i)aws_secret_access_key['\"]?\s*[=:]\s*['\"]?[A-Za-z0-9/+]{40}\b"),
}
ASSIGNMENT = re.compile(r"""(?i)(password|passwd|secret|token|api_?key|fernet_?key)['"]?\s*[=:]\s*['"]?[^\s'"]""")


def findings(archive: IO[bytes]) -> list[str]:
    """What looks like a secret in an image; empty if nothing does.

    Args:
        archive: What `docker save` or `podman save` writes; read once, from its beginning.

    Returns:
        A line for each: where, and what it looks like, never the secret itself.
    """
    with (
        transient_settings({"plugins_used": [{"name": name} for name in DETECTORS]}),
        tarfile.open(fileobj=archive) as image,
    ):
        (manifest,) = json.load(_member(image, "manifest.json"))
        found = list(_of_configuration(json.load(_member(image, manifest["Config"]))))
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(image, layer)) as files:
                found += _of_files(files)
    return sorted(set(found))


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    member = archive.getmember(name)
    target = (
        archive.extractfile(f"{Path(name).parent}/{member.linkname}") if member.issym() else archive.extractfile(name)
    )
    assert target is not None
    return target


def _of_configuration(configuration: dict[str, Any]) -> Iterator[str]:
    for variable in configuration.get("config", {}).get("Env") or []:
        yield from _of_variable(variable)
    for step in configuration.get("history", []):
        command = step.get("created_by", "")
        yield from (f"build step {command[:40]!r}: {kind}" for kind in _kinds(command))
        if arguments := re.match(r"\|\d+ (.*?) /bin/", command):  # how Docker keeps the build's arguments
            for name, value in re.findall(r"(\w+)=(.*?)(?= \w+=|$)", arguments[1]):
                yield from _of_variable(f"{name}={value}")


def _of_variable(variable: str) -> Iterator[str]:
    name, _, value = variable.partition("=")
    if value and is_credential(name, value):
        yield f"variable {name}: looks like a credential"
    yield from (f"variable {name}: {kind}" for kind in _kinds(value))


def _of_files(files: tarfile.TarFile) -> Iterator[str]:
    for member in files:
        name = member.name.removeprefix("./")
        if not member.isfile() or PACKAGES.match(name):
            continue
        if FORBIDDEN.search(name):
            yield f"{name}: has no place in an image"
        content = files.extractfile(member) if member.size <= LARGEST else None
        if content is not None:
            yield from (f"{name}: {kind}" for kind in _kinds_in(name, content.read()))


def _kinds_in(name: str, content: bytes) -> set[str]:
    if b"\0" in content[:1024]:  # no text
        return set()
    text = content.decode(errors="replace")
    return _kinds(text) | ({"Assignment"} if OURS.match(name) and ASSIGNMENT.search(text) else set())


def _kinds(text: str) -> set[str]:
    found = {secret.type for line in text.splitlines() for secret in scan_line(line)}
    return found | {kind for kind, form in OTHER_FORMS.items() if form.search(text)}
