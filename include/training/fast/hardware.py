"""What the machine at hand computes on, and in which precision."""
# ruff: noqa: TID253 - imported with the trainer and the scorer, inside functions

import ctypes
from contextlib import suppress

import torch
from joblib import cpu_count

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as in glibc's malloc.h


def device_type() -> str:
    """What torch calls it: cuda, or else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bfloat16_is_quick(device: str) -> bool:
    """Whether a type of device computes in bfloat16 natively; emulated it is slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def limit_threads() -> None:
    """Lets torch, and whoever follows it, compute with no more threads than this process may use processors.

    torch counts those of the machine, and knows nothing of a container's limit: the threads that are too many wait for
    each other at each step. Fewer, by OMP_NUM_THREADS or torch's own function, stay fewer.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))


def keep_freed_memory() -> None:
    """Lets this process use freed memory again instead of giving it back and asking for it anew.

    Each step's tensors would come as new pages otherwise, some thousands of them, which the kernel fills with zeros
    first; on two cores that was a tenth of the time. The peak stays as it is. Does nothing where the C library is not
    glibc.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc takes
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
