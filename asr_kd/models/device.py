"""The device that networks run on, and the dtype of their matrix products."""

import torch


def device_and_dtype(device: str, precision: str) -> tuple[str, torch.dtype]:
    """Return what ``--device`` (cpu, cuda, auto) and ``--precision`` (float32, bfloat16, auto) mean on this machine.

    Returns:
        The device, and the dtype of the matrix products; weights stay in float32.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    bfloat16 = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))
    return device, torch.bfloat16 if bfloat16 else torch.float32


def fast_bfloat16(device: str) -> bool:
    """Return whether the device has instructions for matrix products in bfloat16."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
