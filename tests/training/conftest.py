"""Tiny models, runs, rays and a scene."""

import pytest
from tiny import reference  # noqa: F401
from tiny_runs import demo, rays, save_run, tiny_model  # noqa: F401


@pytest.fixture(autouse=True)
def no_other_tests_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """nerfstudio has all trainings of a process log into the folders of all earlier ones, which may be gone."""
    from nerfstudio.utils import writer  # which fails where it is the first of nerfstudio's to be imported

    monkeypatch.setattr(writer, "EVENT_WRITERS", [])
