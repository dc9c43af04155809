"""Who may import whom: rooms of the package lie in layers, and every import goes downwards."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dac_nerfstudio"
LAYERS = (
    ("cli",),
    ("render",),
    ("check", "launch"),
    ("report", "methods"),
    ("training",),
    ("viewer",),
    ("teachers", "sampling"),
    ("partition", "demo", "device", "media"),
    ("runs",),
    ("nerfacto",),
    ("kplanes", "scene", "presets"),
    ("image_scores",),
    ("naming", "files", "messages", "scores", "style", "units", "signals"),
    ("errors",),
)
"""Rooms (modules and packages at the top), from the highest layer to the lowest. A room imports itself and rooms of
lower layers; those of one layer know nothing of each other."""


def modules() -> dict[str, Path]:
    """Files of the package by their dotted names, without the package's own in front."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, wherever in the file it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            # A name may be a module of its own: from dac_nerfstudio.report import writing.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            inner = name.removeprefix("dac_nerfstudio.")
            if inner == name:
                continue
            found.add(inner if inner in known else inner.rpartition(".")[0])
    return found - {""}


def test_every_room_has_a_layer_and_every_layer_its_rooms() -> None:
    rooms = {name.partition(".")[0] for name in modules()} - {""}
    listed = [room for layer in LAYERS for room in layer]
    assert sorted(listed) == sorted(rooms)


def test_imports_go_downwards() -> None:
    height = {room: -number for number, layer in enumerate(LAYERS) for room in layer}
    known, upwards = modules(), []
    for name, path in known.items():
        room = name.partition(".")[0]
        for other in imported(path, known):
            target = other.partition(".")[0]
            if target != room and height[target] >= height[room]:
                upwards.append(f"{name} imports {other}")
    assert not upwards, "\n".join(upwards)


def test_no_module_comes_back_to_itself() -> None:
    known = modules()
    # A package's own module stands for what it offers, and is no way round.
    graph = {name: imported(path, known) for name, path in known.items()}
    assert len(graph) > 50 and "partition" in graph["launch.plan"], "the files were read"
    list(TopologicalSorter(graph).static_order())  # raises CycleError, with the circle in its message


def test_the_page_on_the_code_names_every_room_and_its_walk_goes_by_files_that_are_there() -> None:
    text = (PACKAGE.parent / "docs" / "code.md").read_text("utf8")
    table, _, walk = text.partition("A photo's way through the code")
    named = {re.sub(r"^dac_nerfstudio/|/$|\.py$", "", name) for name in re.findall(r"`([\w/.]+)`", table)}
    assert {name.partition(".")[0] for name in modules()} - {""} <= named
    steps, folder = re.findall(r"^\d+\. (.*)$", walk, re.MULTILINE), PACKAGE
    assert len(steps) == 10
    for step in steps:
        for name in re.findall(r"`([\w/]+\.py)`", step):
            # A bare name lies beside the file that the step begins with, or at the top.
            folder = (PACKAGE / name).parent if "/" in name else folder
            assert (PACKAGE / name).exists() or (folder / name).exists(), name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_to_the_repositorys_files_lead_somewhere(name: str) -> None:
    """`make docs` sees to the links between the site's pages."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", (PACKAGE.parent / name).read_text("utf8"))
    assert links and not [link for link in links if not (PACKAGE.parent / link).exists()]
