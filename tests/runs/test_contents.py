"""What photos hold is read once, and noticed whenever it is something else."""

import os
from pathlib import Path

import pytest

from dac_nerfstudio.runs import contents
from dac_nerfstudio.runs.contents import contents_digest


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    digest = contents._digest_of
    monkeypatch.setattr(contents, "_digest_of", lambda path: (names.append(path.name), digest(path))[1])
    return names


def test_a_photo_is_read_once(photos: list[Path], tmp_path: Path, read: list[str]) -> None:
    kept = tmp_path / "kept.json"
    first = contents_digest(photos, kept)
    assert read == ["0.png", "1.png", "2.png"]
    assert contents_digest(photos, kept) == first and len(read) == 3
    assert contents_digest(photos[::-1], kept) != first and len(read) == 3


def test_another_photo_of_the_same_name_size_and_age_is_noticed(
    photos: list[Path], tmp_path: Path, read: list[str]
) -> None:
    kept = tmp_path / "kept.json"
    first = contents_digest(photos, kept)
    status = photos[1].stat()
    photos[1].write_bytes(b"?" * 100)
    os.utime(photos[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contents_digest(photos, kept) != first
    assert read[3:] == ["1.png"]


def test_digests_do_not_depend_on_what_is_kept(photos: list[Path], tmp_path: Path) -> None:
    first = contents_digest(photos, tmp_path / "kept.json")
    for content in ("", "[1, 2]", "[" * 100_000, f'{{"{photos[0]}": 7}}'):
        (tmp_path / "kept.json").write_text(content)
        assert contents_digest(photos, tmp_path / "kept.json") == first


def test_nothing_is_left_where_no_results_are(photos: list[Path], tmp_path: Path) -> None:
    contents_digest(photos, tmp_path / "outputs" / "kept.json")
    assert not (tmp_path / "outputs").exists()
