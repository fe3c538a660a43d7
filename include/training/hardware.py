"""What the machine at hand computes on, and in which precision."""
# ruff: noqa: TID253 - imported with the trainer and the scorer, inside functions

import torch


def device_type() -> str:
    """What torch calls it: cuda, or else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bfloat16_is_quick(device: str) -> bool:
    """Whether a type of device computes in bfloat16 natively; emulated it is slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
