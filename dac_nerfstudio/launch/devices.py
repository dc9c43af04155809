"""Where stages run: one queue per device named."""

from __future__ import annotations

from typing import Tuple

from dac_nerfstudio.errors import StageError


def find_devices(asked: str) -> Tuple[str, ...]:
    """Devices to run stages on, one stage at a time on each mention of one.

    Args:
        asked: `auto` (every CUDA device there is, otherwise MPS, otherwise the CPU), numbers of CUDA devices (`0,1`),
            `mps`, or `cpu`; a device named twice runs two stages at a time.

    Returns:
        Names such as `cuda:0`, all of one kind.

    Raises:
        StageError: no such device.
    """
    import torch

    from dac_nerfstudio.device import default_device

    count = torch.cuda.device_count()
    if asked == "auto":
        kind = default_device()
        return tuple(f"cuda:{number}" for number in range(count)) if kind == "cuda" else (kind,)
    names = tuple(part.strip() for part in asked.split(","))
    if all(name == names[0] and name in ("cpu", "mps") for name in names):
        return names
    if not all(name.isdecimal() for name in names):
        raise StageError(f"--devices {asked}: expected auto, cpu, mps, or numbers of CUDA devices such as 0,1.")
    lacking = sorted({name for name in names if int(name) >= count}, key=int)
    if lacking:
        there = f"only 0 to {count - 1}" if count else "none"
        raise StageError(f"--devices {asked}: there is no CUDA device {', '.join(lacking)} here, {there}.")
    return tuple(f"cuda:{name}" for name in names)
