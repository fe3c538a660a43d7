"""What a job's outcome came of, beside the job: the trainer's own code, the libraries, the machine."""

import hashlib
from importlib import metadata
from pathlib import Path

TRAINER = Path(__file__).parent
LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors", "pyarrow", "mlflow")
CPU_INFO = Path("/proc/cpuinfo")


def trainer_hash() -> str:
    """The hash of the trainer's Python files, the same in Airflow's image and in the trainer's."""
    digest = hashlib.sha256()
    for path in sorted(TRAINER.rglob("*.py")):
        digest.update(f"{path.relative_to(TRAINER)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """The versions of Python, of this platform's kind, and of the libraries that training uses."""
    import platform
    import sys

    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # the trainer's image has mlflow-skinny
            if name == "mlflow":
                found[name] = metadata.version("mlflow-skinny")
    return found


def machine() -> dict[str, str]:
    """What sums are done by: two machines that differ here add in another order, and differ in the last digits."""
    import platform

    import torch

    found = {"architecture": platform.machine(), "processor": _processor(), "threads": str(torch.get_num_threads())}
    if torch.cuda.is_available():
        return found | {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    return found | {"instructions": torch.backends.cpu.get_cpu_capability()}


def _processor() -> str:
    """The processor's model, where the system says it."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"
