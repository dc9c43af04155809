"""Kernels are compiled wherever the package lies."""

from __future__ import annotations

from typing import Any

import pytest

from dac_nerfstudio.kplanes.backends.compiling import kernel


def test_a_kernel_runs_where_numba_can_keep_nothing() -> None:
    from numba import njit

    # numba keeps results beside a function's file, or in the user's cache: this one has no file, and so no place there.
    scope: dict[str, Any] = {}
    exec(compile("def twice(number): return 2 * number", "nowhere.py", "exec"), scope)
    with pytest.raises(RuntimeError, match="no locator"):
        njit(cache=True)(scope["twice"])
    assert kernel(scope["twice"])(21) == 42
