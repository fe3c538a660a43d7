"""What the pages of docs/ that are written from measurements share: templates, and what is kept of a simulation."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from include.registry.code import code_hash


def templates(folder: Path) -> jinja2.Environment:
    """The templates of a folder, for Markdown. What one names that is not there is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def keep(found: dict[str, Any], begun: datetime, path: Path) -> dict[str, Any]:
    """Writes what was simulated as JSON, with when that was, how long it took, and the code; returns all of it."""
    found = found | {
        "when": begun.isoformat(timespec="minutes"),
        "minutes": round((datetime.now(UTC) - begun).total_seconds() / 60, 1),
        "code": code_hash(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found
