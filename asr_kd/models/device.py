"""Device and number type of the matrix products."""

from __future__ import annotations

import torch


def device_and_dtype(device: str, precision: str) -> tuple[str, torch.dtype]:
    """What the flags ``--device`` (cpu, cuda, auto) and ``--precision`` (float32, bfloat16, auto) mean on this machine.

    Returns:
        device, and the type of the matrix products; the weights stay float32.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    bfloat16 = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))
    return device, torch.bfloat16 if bfloat16 else torch.float32


def fast_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this device."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
