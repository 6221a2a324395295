"""Reads files that others may have spoiled: regular ones only, without waiting, and not too much.

Every reader of a file that sgpud did not ship goes through here, so that a pipe, a device or a
sparse terabyte in a file's place is an error like any other. The standard library only.
What sgpud writes for others or for its next run is written whole or not at all, likewise here.

A node's / can be mounted at some other folder: `within` resolves the links of a path inside it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

_MOST_LINKS = 40
"""Links in one path, at most, as in the kernel (path_resolution(7))."""
_HOST = Path("/")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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


def replace_file(
    path: Path,
    content: bytes,
    mode: int = 0o600,
    folder: int | None = None,
    *,
    durable: bool = True,
) -> None:
    """Replace a file: after a crash there is the old content or the new one. Blocks; OSError.

    `path` begins at the descriptor `folder` if there is one. A process that is killed leaves a
    draft whose name begins with a dot and the file's name, and that nobody can foresee. Without
    `durable` that holds for a crash of the process, and the disk is not waited for.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(draft, flags, mode, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # The umask may be narrower than what the readers need.
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(draft, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=folder)
        raise
    if not durable:
        return
    where = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(where)
    finally:
        os.close(where)


def identity(path: Path, *, follow: bool = True) -> tuple[int, ...] | None:
    """What tells one file from the next at the same path; None if there is none.

    An inode number alone does not: ext4 gives the next file the same one. A rewritten file has
    another change time.
    """
    try:
        found = path.stat() if follow else path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns)


def boot_id(path: Path = _BOOT_ID) -> str:
    """The id of this boot; empty if the kernel does not provide one."""
    try:
        return read_regular(path, 1024).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
