"""Compiles numba kernels. Import late: this imports numba and LLVM."""

from __future__ import annotations

from typing import Any, Callable

from numba import njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, without the GIL, and keep the result on disk where there is a place to write it."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the function's folder nor the user's cache can be written to
        return njit(nogil=True, error_model="numpy")(function)
