"""Puts all that is known of a version into one folder: ``python -m include.orchestration.export --version 7 --to DIR``.

=================  =====================================================================
``model/``         its files, as they are served
``README.md``      the model card
``dataset.json``   the manifest of the dataset it was trained on
``job.json``       what was trained, ``result.json`` what came of it and with which versions
``decision.json``  the ledger's entries about it, and the evaluation that it was judged by
=================  =====================================================================
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from include import lake, objects
from include.orchestration.reproduction import NotReproducible, entries, origin
from include.registry import ledger
from include.settings import settings


def export(model_name: str, version: str, folder: Path) -> Path:
    """Writes the folder, whole or not at all; returns it.

    Raises NotReproducible if the version or its job is not there, and FileExistsError if the folder is.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: move it away, or choose another")
    found = origin(model_name, version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        work = Path(scratch) / "export"
        try:
            objects.download(found.model_uri, work / "model")
        except FileNotFoundError as error:
            raise NotReproducible(f"the files of version {version} are gone: {error}") from error
        card = work / "model" / "README.md"
        if card.exists():
            card.rename(work / "README.md")
        manifest = f"{found.job.dataset_uri.rstrip('/')}/manifest.json"
        if objects.exists(manifest):
            objects.download_file(manifest, work / "dataset.json")
        (work / "job.json").write_text(found.job.model_dump_json(indent=2))
        (work / "result.json").write_text(found.result.model_dump_json(indent=2))
        (work / "decision.json").write_text(_decision(model_name, version))
        work.rename(folder)
    return folder


def _decision(model_name: str, version: str) -> str:
    about = entries(model_name, version)
    evaluations = [found for entry in about if (found := _evaluation(entry)) is not None]
    content = {
        "ledger": [entry.model_dump(mode="json") for entry in about],
        "evaluation": evaluations[-1] if evaluations else None,  # the first decision about it
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _evaluation(entry: ledger.Entry) -> object:
    """The evaluation of the run that decided, where its reports are still there."""
    kind, _, dag_id = entry.actor.partition(":")
    uri = lake.report(dag_id, entry.dag_run_id, "evaluation.json")
    return objects.read_json(uri) if kind == "dag" and entry.verb != "rollback" and objects.exists(uri) else None


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.export", description=__doc__)
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--version", required=True)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder that is not there yet")
    options = parser.parse_args(arguments)
    try:
        export(options.model, options.version, options.to)
    except (NotReproducible, FileExistsError) as error:
        print(f"not exported: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
