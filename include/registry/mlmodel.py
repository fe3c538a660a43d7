"""The files that let MLflow load a version by itself, on a machine that does not have this project.

``MLmodel`` names inputs, outputs and the loader; ``code.zip`` is the code that answers, which MLflow puts on the path;
``requirements.txt`` the packages that this needs; ``input_example.json`` an input that works.
"""

import io
import json
import zipfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from include import objects

CODE, REQUIREMENTS, EXAMPLE = "code.zip", "requirements.txt", "input_example.json"
PROJECT = Path(__file__).parents[2]
MODULES = (
    *("__init__.py", "lake.py", "objects.py", "renaming.py", "settings/*.py", "training/**/*.py"),
    *("registry/__init__.py", "registry/pyfunc.py"),
)
PACKAGES = (
    "fsspec",
    "joblib",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic-settings",
    "safetensors",
    "torch",
    "transformers",
)
EXAMPLE_ROWS = {"columns": ["text"], "data": [["my card has not arrived yet"]]}


def describe(uri: str) -> None:
    """Writes ``MLmodel`` and what it names (code, requirements, an example) beside a version's files."""
    files = {CODE: code(), REQUIREMENTS: _requirements(), EXAMPLE: json.dumps(EXAMPLE_ROWS).encode()}
    for name, content in files.items():
        objects.write_bytes(f"{uri}/{name}", content)
    objects.write_bytes(f"{uri}/MLmodel", _mlmodel().encode())


def _mlmodel() -> str:
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "text")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema([ParamSpec("probabilities", "boolean", default=False)]),
    )
    # As MLflow does it for models whose code says what it takes: it leaves the inputs to the loader, which takes a
    # text, a list or a frame with a column `text`. By the schema alone MLflow refuses lists, as they have no column.
    signature._is_signature_from_type_hint = True
    example = {"artifact_path": EXAMPLE, "type": "dataframe", "pandas_orient": "split"}
    model = Model(signature=signature, saved_input_example_info=example)
    pyfunc.add_to_model(model, loader_module="include.registry.pyfunc", code=CODE)
    return str(model.to_yaml())


@lru_cache(maxsize=1)
def code() -> bytes:
    """What a version needs of this project to answer, as a zip file that Python imports from; always the same bytes."""
    sink = io.BytesIO()
    root = PROJECT / "include"
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted({path for pattern in MODULES for path in root.glob(pattern)}):
            archive.writestr(zipfile.ZipInfo(path.relative_to(PROJECT).as_posix()), path.read_bytes())
    return sink.getvalue()


def _requirements() -> bytes:
    """Those of this machine; without the builds' names, which no package index knows."""
    return "".join(f"{name}=={metadata.version(name).split('+')[0]}\n" for name in PACKAGES).encode()
