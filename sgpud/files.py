"""Reads files that others may have spoiled: regular ones only, without waiting, and not too much.

Every reader of a file that sgpud did not ship goes through here, so that a pipe, a device or a
sparse terabyte in a file's place is an error like any other. The standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


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
