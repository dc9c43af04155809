"""Compiled kernels are kept on disk where that can be, and compiled anew when any file with kernels has changed."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from numba import njit

from dac_nerfstudio.kplanes.backends import compiling


def test_a_kept_kernel_is_used_as_long_as_no_file_with_kernels_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept_on_disk.py").write_text("def add(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kept_on_disk", raising=False)

    def compiled() -> Any:
        module = importlib.reload(importlib.import_module("kept_on_disk"))
        function: Any = compiling.kernel(module.add)
        assert function(1.0) == 2
        return function.stats

    assert sum(compiled().cache_misses.values()) == 1
    again = compiled()
    assert sum(again.cache_hits.values()) == 1 and not again.cache_misses
    monkeypatch.setattr(compiling, "STAMP", "of other files")
    assert sum(compiled().cache_misses.values()) == 1
    assert len(list(compiling.ROOT.rglob("*kernels.py"))) >= 5


def test_a_kernel_runs_where_numba_can_keep_nothing() -> None:
    # numba keeps results beside a function's file, or in the user's cache: this one has no file, and so no place there.
    scope: dict[str, Any] = {}
    exec(compile("def twice(number): return 2 * number", "nowhere.py", "exec"), scope)
    with pytest.raises(RuntimeError, match="no locator"):
        njit(cache=True)(scope["twice"])
    assert compiling.kernel(scope["twice"])(21) == 42
