"""Registers, spills and occupancy of the Triton kernels, without a GPU.

Each kernel is compiled for an NVIDIA architecture as a launch at training's sizes would compile it, and the machine
code is asked what it takes. "spilt" are bytes per thread that found no register and went to memory. "warps" is how many
a multiprocessor can hold by its 65,536 registers, its 64 places for warps and its shared memory: what the time that
a load takes is hidden behind. The kernels compute with 32 threads per warp and as many warps per program as
dac_nerfstudio.kplanes.backends.triton asks for.

    python benchmarks/registers.py --numbers 2048 1024 512 256 --json registers.json
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import timing
import triton
import tyro
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dac_nerfstudio.kplanes.backends import triton as kernels

REGISTERS, REGISTER_UNIT, WARPS = 65_536, 256, 64
"""What a multiprocessor has; a warp gets registers by the unit. CUDA C++ Programming Guide, compute capabilities."""
SHARED_BYTES, SHARED_OF_BLOCK = {80: 167_936, 90: 233_472}, 1024
"""What a multiprocessor has, and what the driver takes of it for each block."""
POINTERS = {"points", "planes_gradient", "points_gradient", "upstream", "sums", "gradient"}


@dataclass
class Options:
    """What to compile."""

    architectures: tuple[Literal[80, 90], ...] = (80, 90)
    """Compute capabilities: 80 is the A100, 90 the H100 and H200."""
    numbers: tuple[int, ...] = (kernels.NUMBERS_PER_PROGRAM,)
    """Points times channels of a program of the lookup."""
    channels: tuple[int, ...] = (32, 8)
    """Channels of the planes."""
    json: Optional[Path] = None
    """Also write all figures to this file."""
    device: Literal["cpu"] = "cpu"
    """Where this runs; no GPU is used."""


def compile_kernel(kernel: Any, architecture: int, stored: Literal["fp32", "fp16"], constants: dict[str, Any]) -> Any:
    """As a launch would: pointers and the features' strides are multiples of 16, coordinates and sums are fp32."""
    pointers = {**dict.fromkeys(POINTERS, "*fp32"), **dict.fromkeys(("planes", "out"), "*" + stored)}
    others = {name: "constexpr" for name in constants} | {"factor": "fp32"}
    signature = {name: pointers.get(name) or others.get(name, "i32") for name in kernel.arg_names}
    aligned = [i for i, name in enumerate(kernel.arg_names) if name in {*pointers, "stride", "offset"}]
    source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=kernels.LAUNCH)


def resources(compiled: Any, architecture: int) -> dict[str, int]:
    """Registers and spilt bytes per thread, shared bytes per program, and warps per multiprocessor."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|SHARED):(\d+)", text)}
    warps = kernels.LAUNCH["num_warps"]
    of_warp = -(-found["REG"] * 32 // REGISTER_UNIT) * REGISTER_UNIT
    shared = compiled.metadata.shared
    blocks = min(
        REGISTERS // of_warp // warps, WARPS // warps, SHARED_BYTES[architecture] // (shared + SHARED_OF_BLOCK)
    )
    return {"registers": found["REG"], "spilt": found["STACK"], "shared": shared, "warps": blocks * warps}


def cases(options: Options) -> Iterator[tuple[str, Any, Literal["fp32", "fp16"], dict[str, Any]]]:
    """Names, kernels, types of the planes and constants: what training launches."""
    for channels in options.channels:
        for numbers in options.numbers:
            width, block = kernels.tiling(channels, numbers)
            tiles = {"CHANNELS": channels, "WIDTH": width, "BLOCK": block}
            about = f"{channels} channels, {numbers} numbers"
            yield f"lookup, {about}", kernels._forward, "fp32", tiles
            yield f"teacher's lookup, {about}", kernels._forward, "fp16", tiles
            yield f"lookup's gradient, {about}", kernels._backward, "fp32", {**tiles, "PLANES": True, "POINTS": False}
        rows = {"CHANNELS": channels, "BLOCK": kernels.DIFFERENCES_PER_PROGRAM}
        yield f"total variation, {channels} channels", kernels._sum_squares, "fp32", rows
        yield f"total variation's gradient, {channels} channels", kernels._differentiate_squares, "fp32", rows


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    entries = [
        {
            "kernel": name,
            "planes": stored,
            "architecture": f"sm_{architecture}",
            **resources(compile_kernel(kernel, architecture, stored, constants), architecture),
        }
        for architecture in options.architectures
        for name, kernel, stored, constants in cases(options)
    ]
    timing.show("Triton kernels, per thread, program and multiprocessor", entries)
    timing.write_results(options.json, options, entries)


if __name__ == "__main__":
    main()
