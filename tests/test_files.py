"""Reading files that others may have spoiled: nothing waits, and all has a bound."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sgpud.cli.doctor.files import beginning
from sgpud.files import boot_id, identity, open_regular, read_regular, replace_file
from sgpud.gpus.cdi import read_specs
from sgpud.gpus.nvml.driver_files import signs
from tests.surroundings import descriptors


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_regular(tmp_path / "file", 10) == b"x" * 10
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 10) == b"x" * 10


def test_one_byte_more_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_regular(tmp_path / "file", 10)


def test_what_the_kernel_makes_up_has_no_size_and_is_bounded_all_the_same() -> None:
    assert read_regular("/proc/self/stat", 4096)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_regular("/proc/self/stat", 10)


def test_a_file_is_replaced_whole_with_its_mode_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one", 0o644)
    first = identity(path)
    replace_file(path, b"two", 0o644)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert identity(path) != first
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - the names


def test_a_file_that_cannot_be_replaced_is_an_error_and_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "file", b"one")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - the names
    assert identity(tmp_path / "none") is None


def test_the_id_of_the_boot_is_read_and_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("one\n")
    assert boot_id(tmp_path / "boot_id") == "one"
    assert not boot_id(tmp_path / "none")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (_socket, "No such device"),
        (lambda path: path.symlink_to(path), "Too many levels"),
        (lambda _: None, "No such file"),
    ],
)
def test_everything_else_is_an_error_at_once(
    tmp_path: Path, make: Callable[[Path], object], problem: str
) -> None:
    make(tmp_path / "it")
    before = descriptors()
    with pytest.raises(OSError, match=problem):
        read_regular(tmp_path / "it", 10)
    assert descriptors() == before


def test_a_link_is_not_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="Too many levels"):
        open_regular(tmp_path / "link", os.O_NOFOLLOW)


def test_a_pipe_does_not_block_the_reader(tmp_path: Path) -> None:
    for name in ("etc/cdi/a.json", "etc/cdi/b.yaml", "proc/driver/nvidia/version", "text"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
    assert "not a regular file" in str(read_specs(tmp_path, "nvidia.com/gpu"))
    assert signs(tmp_path).version == ""
    assert beginning(tmp_path / "text") == ""
