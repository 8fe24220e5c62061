"""Which types a processor computes in."""

import torch


def type_named(precision: str) -> torch.dtype:
    """The type that an option of the command line names: ``"bfloat16"``, or float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def has_bfloat16(device: str = "cpu") -> bool:
    """Whether a device has units for bfloat16 (a CPU: AMX or AVX-512 BF16); where it has none, bfloat16 costs several times float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if torch.device(device).type != "cpu":
        return False
    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(bool(ask()) for ask in asked if ask is not None)
