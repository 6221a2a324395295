"""The CDI spec of our memory caps: one device for each cap that a container has or can get."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sgpud.core.limits.caps import CAP_KIND, cap_spec
from sgpud.files import read_regular, replace_file, within
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
            replace_file(path, content, 0o644)
    except OSError as problem:
        return f"cannot write {SPEC}: {problem.strerror or problem}"
    return ""


def _has(path: Path, content: bytes) -> bool:
    try:
        return read_regular(path, LARGEST_SPEC) == content
    except OSError:
        return False
