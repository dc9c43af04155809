"""Compiled kernels are kept on disk, and compiled anew when any file with kernels has changed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from dac_nerfstudio.kplanes.backends import compiling


def test_a_kept_kernel_is_used_as_long_as_no_file_with_kernels_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.py").write_text("def add(x):\n    return x + 1\n")

    def compiled() -> Any:
        spec: Any = importlib.util.spec_from_file_location("some", tmp_path / "some.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function: Any = compiling.kernel(module.add)
        assert function(1.0) == 2
        return function.stats

    assert sum(compiled().cache_misses.values()) == 1
    again = compiled()
    assert sum(again.cache_hits.values()) == 1 and not again.cache_misses
    monkeypatch.setattr(compiling, "STAMP", "of other files")
    assert sum(compiled().cache_misses.values()) == 1
    assert len(list(compiling.ROOT.rglob("*kernels.py"))) >= 5
