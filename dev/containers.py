"""The Astro CLI and the container engine beneath it, as `make docker-check` uses them."""

import json
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dev.processes import StartError
from dev.state import REPOSITORY

_SERVICE, _PROJECT = "com.docker.compose.service", "com.docker.compose.project"


@dataclass(frozen=True)
class AstroProject:
    """The containers of `astro dev start`.

    Args:
        astro: The CLI's command, `astro dev` in words.
        wait: How long `start` may take, as the CLI's option wants it.
        engine: docker or podman.
    """

    astro: Sequence[str]
    wait: str
    engine: str

    def start(self) -> None:
        """Builds the image, starts all containers, imports airflow_settings.yaml. Raises StartError."""
        self._run(*self.astro, "start", "--wait", self.wait)

    def stop(self) -> None:
        """Stops the containers; the volumes stay. Raises StartError."""
        self._run(*self.astro, "stop")

    def crash(self, service: str) -> None:
        """Kills a service's container as an empty battery would. Raises StartError."""
        self._run(self.engine, "kill", self._container(service)["Id"])

    def revive(self, service: str) -> None:
        """Starts a container that was killed. Raises StartError."""
        self._run(self.engine, "start", self._container(service)["Id"])

    def airflow_port(self) -> int:
        """Where Airflow listens on this machine: 8080, or another if that is taken. Raises StartError."""
        (published, *_) = self._container("webserver")["NetworkSettings"]["Ports"]["8080/tcp"] or [{}]
        if "HostPort" not in published:
            raise StartError("Airflow's webserver is not running; start it: astro dev start")
        return int(published["HostPort"])

    def secrets_in_image(self) -> list[str]:
        """What looks like a secret in Airflow's image. Raises StartError."""
        from dev.image_scan import findings

        image = self._container("scheduler")["Image"]
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            self._run(self.engine, "save", "--output", archive.name, image)
            return findings(archive)

    def _container(self, service: str) -> dict[str, Any]:
        ids = self._run(self.engine, "ps", "--all", "--quiet", "--filter", f"label={_SERVICE}={service}").split()
        found = json.loads(self._run(self.engine, "inspect", *ids)) if ids else []
        # The CLI adds a hash to the project's name.
        ours = [one for one in found if one["Config"]["Labels"].get(_PROJECT, "").startswith("bert-on-astro")]
        if len(ours) != 1:
            raise StartError(f"{len(ours)} containers of the service {service} are there, and one was expected")
        return dict(ours[0])

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise StartError(f"there is no {command[0]} on this machine") from error
        if done.returncode:
            raise StartError(f"{shlex.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout
