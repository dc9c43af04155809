"""Files that are there as a whole or not at all."""

import errno
from pathlib import Path

import pytest

from dac_nerfstudio.errors import in_a_line
from dac_nerfstudio.files import atomic_write


def test_a_file_that_finds_no_room_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "partition.png"
    with pytest.raises(OSError) as caught, atomic_write(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert in_a_line(caught.value) == f"{path}: No space left on device"
    assert not list(tmp_path.iterdir())


def test_another_file_that_is_lacking_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "video.mp4"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "ffmpeg")
    assert caught.value.filename == "ffmpeg"
