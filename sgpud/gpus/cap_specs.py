"""The CDI spec of our memory caps: one device for each cap that a container has or can get."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sgpud.core.limits.caps import CAP_KIND, cap_spec
from sgpud.files import read_regular, within
from sgpud.gpus.cdi import FOLDERS, LARGEST_SPEC

SPEC = f"{FOLDERS[-1]}/{CAP_KIND.replace('/', '-')}.json"
"""In the folder for specs of running programs, which is empty after a reboot."""


def write_caps(root: Path, caps: Iterable[int]) -> str:
    """Have the spec of the node below `root` name these caps, and no others; why not, or empty.

    A runtime sees the old spec or the new one, whatever happens meanwhile. Without a cap there is
    no file.
    """
    wanted = sorted(caps)
    path = within(root, SPEC)
    content = (json.dumps(cap_spec(wanted), indent=1) + "\n").encode()
    try:
        if not wanted:
            path.unlink(missing_ok=True)
        elif not _has(path, content):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _replace(path, content)
    except OSError as problem:
        return f"cannot write {SPEC}: {problem.strerror or problem}"
    return ""


def _has(path: Path, content: bytes) -> bool:
    try:
        return read_regular(path, LARGEST_SPEC) == content
    except OSError:
        return False


def _replace(path: Path, content: bytes) -> None:
    # Not *.json: no runtime reads it. Always one name, so that a crash leaves one file at most.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
