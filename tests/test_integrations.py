"""What lies ready for other projects names what is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from dac_nerfstudio import methods

FOLDER = Path(__file__).parent.parent / "integrations" / "nerfstudio"
REGISTERED = {
    value.config.method_name for value in vars(methods).values() if type(value).__name__ == "MethodSpecification"
}


def test_nerfstudios_entry_and_page_name_the_registered_methods() -> None:
    from nerfstudio.configs.external_methods import external_methods

    before = list(external_methods)
    try:
        runpy.run_path(str(FOLDER / "external_method.py"))
        (entry,) = external_methods[len(before) :]
    finally:
        external_methods[:] = before
    assert {name for name, _ in entry.configurations} == REGISTERED and len(REGISTERED) == 12
    page = (FOLDER / "dac.md").read_text("utf8")
    named = set(re.findall(r"`(dac-[a-z]+)`", page))
    assert named == {name.removesuffix("-360") for name in REGISTERED}
