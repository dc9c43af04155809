"""Compiles numba kernels. Import late: this imports numba and LLVM."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Callable

from numba import njit

ROOT = Path(__file__).parents[2]
STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(ROOT.rglob("*kernels.py")))).hexdigest()
"""Of all files with kernels, which take functions from one another."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, without the GIL, and keep the result on disk where there is a place to write it."""
    try:
        compiled: Any = njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the function's folder nor the user's cache can be written to
        return njit(nogil=True, error_model="numpy")(function)
    # numba compiles anew where the function's own file has changed, and not where one has that it takes functions from.
    compiled._cache._cache_file._source_stamp = STAMP
    return compiled
