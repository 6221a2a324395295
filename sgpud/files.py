"""Reads files that others may have spoiled: regular ones only, without waiting, and not too much.

Every reader of a file that sgpud did not ship goes through here, so that a pipe, a device or a
sparse terabyte in a file's place is an error like any other. The standard library only.

A node's / can be mounted at some other folder: `within` resolves the links of a path inside it.
"""

from __future__ import annotations

import errno
import os
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

_MOST_LINKS = 40
"""Links in one path, at most, as in the kernel (path_resolution(7))."""
_HOST = Path("/")


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. OSError, with what is wrong."""
    with open_regular(path) as file:
        return content(file, most)


def open_regular(
    path: str | os.PathLike[str], flags: int = 0, directory: int | None = None
) -> BinaryIO:
    """Open a regular file without waiting for anybody; OSError for what is none.

    `flags` as of open(2), e.g. O_NOFOLLOW; a relative path begins at the descriptor `directory`.
    """
    flags |= os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        # A directory raises IsADirectoryError here by itself.
        file = os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file")


def content(file: BinaryIO, most: int) -> bytes:
    """What an opened file has; OSError (EFBIG) for more than `most` bytes."""
    size = os.fstat(file.fileno()).st_size
    read = b"" if size > most else file.read(most + 1)
    if size > most or len(read) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes")
    return read


def within(root: Path, path: str) -> Path:
    """Where an absolute path of the node below `root` is, each of its links followed below `root`.

    The last part need not exist. A path with a loop of links stays at the link.
    """
    if root == _HOST:
        return Path("/" + path.lstrip("/"))
    waiting = [part for part in reversed(path.split("/")) if part]
    found: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del found[-1:]
        elif part != ".":
            target = _link(root.joinpath(*found, part)) if links < _MOST_LINKS else None
            if target is None:
                found.append(part)
                continue
            links += 1
            if target.startswith("/"):
                found.clear()
            waiting += [each for each in reversed(target.split("/")) if each]
    return root.joinpath(*found)


def entries(root: Path, folder: str, pattern: str = "*") -> list[str]:
    """The names in a folder of the node that match a pattern, sorted; none where it is absent."""
    try:
        names = os.listdir(within(root, folder))  # noqa: PTH208 - the names, not paths
    except (OSError, ValueError):
        return []
    return sorted(name for name in names if fnmatchcase(name, pattern))


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115 - its text, as it stands
    except (OSError, ValueError):
        return None
