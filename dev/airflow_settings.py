"""Imports airflow_settings.yaml over Airflow's REST API, as the Astro CLI does after its start."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

PERMITTED_WITHIN = 60.0  # seconds

_Item = dict[str, Any]


def import_settings(airflow: httpx.Client, file: Path, environment: dict[str, str]) -> int:
    """Creates or updates the file's connections, variables and pools.

    Args:
        airflow: client of ``/api/v1`` with the right to write.
        file: in the Astro CLI's format; its absence means nothing to import.
        environment: a connection that it defines (``AIRFLOW_CONN_…``) wins in Airflow, and is left out here.

    Returns:
        How many entries were written. Raises httpx.HTTPStatusError with Airflow's answer.
    """
    if not file.exists():
        return 0
    content = (yaml.safe_load(file.read_text()) or {}).get("airflow") or {}
    entries = [*_connections(content, environment), *_variables(content), *_pools(content)]
    for kind, key, name, body in entries:
        _upsert(airflow, kind, name, {key: name} | body)
    return len(entries)


def _connections(content: _Item, environment: dict[str, str]) -> Iterator[tuple[str, str, str, _Item]]:
    for item in content.get("connections") or []:
        name = item.get("conn_id")
        if not name or f"AIRFLOW_CONN_{name.upper()}" in environment:
            continue
        extra = item.get("conn_extra")
        body = {
            "conn_type": item.get("conn_type"),
            "host": item.get("conn_host"),
            "schema": item.get("conn_schema"),
            "login": item.get("conn_login"),
            "password": item.get("conn_password"),
            "port": item.get("conn_port"),
            "extra": json.dumps(extra) if isinstance(extra, dict) else extra,
        }
        yield "connections", "connection_id", name, {field: value for field, value in body.items() if value}


def _variables(content: _Item) -> Iterator[tuple[str, str, str, _Item]]:
    for item in content.get("variables") or []:
        if name := item.get("variable_name"):
            value = item.get("variable_value")
            yield "variables", "key", name, {"value": value if isinstance(value, str) else json.dumps(value)}


def _pools(content: _Item) -> Iterator[tuple[str, str, str, _Item]]:
    for item in content.get("pools") or []:
        if name := item.get("pool_name"):
            body = {"slots": int(item.get("pool_slot") or 1), "description": item.get("pool_description") or ""}
            yield "pools", "name", name, body


def _permitted(request: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, asked for again while it is 403: on a busy machine a new webserver once refused even its admin."""
    deadline = time.monotonic() + PERMITTED_WITHIN
    while (answer := request()).status_code == httpx.codes.FORBIDDEN and time.monotonic() < deadline:
        time.sleep(1)
    return answer


def _upsert(airflow: httpx.Client, kind: str, name: str, body: _Item) -> None:
    answer = _permitted(lambda: airflow.post(f"/{kind}", json=body))
    if answer.status_code == 409:
        answer = airflow.patch(f"/{kind}/{name}", json=body)
    answer.raise_for_status()
