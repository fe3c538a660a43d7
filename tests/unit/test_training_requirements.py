"""The images' packages are the laptop's: same names, same versions, and no orchestration among them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAINER, SERVER = ROOT / "include" / "training", ROOT / "include" / "serving"


def _pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("folder", [TRAINER, SERVER], ids=["trainer", "server"])
def test_every_package_has_the_version_it_has_on_a_laptop(folder: Path) -> None:
    image, laptop = _pins(folder / "requirements.txt"), _pins(ROOT / "requirements.txt")
    assert {"torch", "transformers", "mlflow-skinny", "s3fs"} <= image.keys()
    assert image == {name: laptop.get(name) for name in image}


@pytest.mark.parametrize("folder", [TRAINER, SERVER], ids=["trainer", "server"])
def test_the_cpu_image_gets_no_cuda_and_no_airflow(folder: Path) -> None:
    unwanted = [
        name for name in _pins(folder / "requirements.txt") if re.match("nvidia|cuda|triton|.*airflow|astro", name)
    ]
    assert unwanted == []


def test_what_only_the_cuda_build_needs_is_pinned_too() -> None:
    cuda = _pins(TRAINER / "constraints-cuda.txt")
    assert {"triton", "nvidia-nccl-cu13", "nvidia-cublas"} <= cuda.keys()
    assert cuda.keys().isdisjoint(_pins(TRAINER / "requirements.txt"))
