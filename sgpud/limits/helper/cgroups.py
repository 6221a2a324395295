"""Which cgroups the helper acts on: those of pods, below one root, on cgroup v2, and no others."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

from sgpud.core.gpu.cgroup_names import pod_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 16
"""Levels from the root to a pod: three, a few more where Kubernetes runs in containers."""
SCRATCH = "sgpud-limits-probe"
"""The cgroup on which a probe tries to set a limit, below the root."""


class LimitRefusedError(Exception):
    """What is asked is not done: the kind of reason, and what a person should know."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def pod_cgroup(root: str, path: str, uid: str) -> int:
    """The inode of the cgroup `path`, which has to be that of the pod `uid`; LimitRefusedError."""
    prefix = root.rstrip("/") + "/"
    parts = path[len(prefix) :].split("/")
    if not path.startswith(prefix) or len(parts) > _DEEPEST or not all(map(_is_plain, parts)):
        raise LimitRefusedError("invalid", f"{path!r} is not a cgroup below {root}")
    if not uid or pod_of(parts[-1]) != uid:
        raise LimitRefusedError("invalid", f"{path!r} is not the cgroup of pod {uid!r}")
    if not any("kubepods" in part for part in parts[:-1]):
        raise LimitRefusedError("invalid", f"{path!r} is not in a kubelet's cgroup of pods")
    try:
        # Step by step: a link anywhere in it is refused.
        folder = os.open(root, _FOLDER)
        for part in parts:
            folder = _below(folder, part)
    except FileNotFoundError:
        raise LimitRefusedError("gone", f"there is no cgroup {path}") from None
    except OSError as problem:
        raise LimitRefusedError("invalid", f"{path}: {problem.strerror}") from None
    try:
        os.stat("cgroup.controllers", dir_fd=folder, follow_symlinks=False)
        return os.fstat(folder).st_ino
    except OSError:
        raise LimitRefusedError("invalid", f"{path} is not a cgroup of version 2") from None
    finally:
        os.close(folder)


@contextmanager
def scratch(root: str) -> Iterator[tuple[str, str]]:
    """Two cgroups, one in the other, that are gone afterwards; LimitRefusedError."""
    outer = f"{root.rstrip('/')}/{SCRATCH}"
    inner = f"{outer}/inner"
    try:
        os.makedirs(inner, exist_ok=True)
    except OSError as problem:
        raise LimitRefusedError("permission", f"cannot make {inner}: {problem.strerror}") from None
    try:
        yield outer, inner
    finally:
        with suppress(OSError):  # somebody has put something into it: the next probe uses it too
            os.rmdir(inner)
            os.rmdir(outer)


def _below(folder: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    finally:
        os.close(folder)


def _is_plain(part: str) -> bool:
    return part not in {"", ".", ".."} and part.isascii() and part.isprintable()
