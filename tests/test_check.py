"""What ``dac check`` says of a machine."""

from __future__ import annotations

import pytest

from dac_nerfstudio import check
from dac_nerfstudio.kplanes import planes


def test_kernels_that_work_or_fail_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dac_nerfstudio.device.default_device", lambda: "cpu")
    assert check._kernels() == check.Finding("good", "Fast kernels look the planes up on cpu.")
    asked = []
    monkeypatch.setattr(planes, "kernel_problem", lambda device, sizes: asked.append(sizes) or "no C compiler")
    assert check._kernels() == check.Finding("optional", "no C compiler")
    # The planes of the default field, and of its proposals.
    assert asked == [[(32, 3), (8, 1)]]
