"""mkdocs' hooks: README.md and its like become pages, and what a page says of a file of the code has to be there.

The pages link to each other as they lie in the repository, where they are read, too.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parent.parent
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files beside docs/ that are pages of the site, and their names there."""

LINK = re.compile(r"(?<!!)\[([^]]*)]\(([^):#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages that lie outside of docs/."""
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(REPOSITORY / path).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Links between pages lead to the site's, and those to other files to the repository, if mkdocs.yml names it.

    Raises PluginError for a link to a file that is not there.
    """
    at = {name: REPOSITORY / path for path, name in OUTSIDE.items()}.get(page.file.src_uri)
    folder = at.parent if at else (REPOSITORY / "docs" / page.file.src_uri).parent

    def lead(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = (folder / target).resolve()
        if not path.exists() or not path.is_relative_to(REPOSITORY):
            raise PluginError(f"{page.file.src_uri}: there is no {target}, to which [{words}] links")
        inside = path.relative_to(REPOSITORY).as_posix()
        if inside in OUTSIDE:
            return f"[{words}]({OUTSIDE[inside]}{anchor})"
        if inside.startswith("docs/"):
            return f"[{words}]({os.path.relpath(path, REPOSITORY / 'docs')}{anchor})"
        return f"[{words}]({config.repo_url.rstrip('/')}/blob/main/{inside})" if config.repo_url else words

    return LINK.sub(lead, markdown)
