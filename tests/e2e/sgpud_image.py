"""sgpud's own image, built from this tree as `make deb image` does."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sgpud

ROOT = Path(__file__).parents[2]
NAME = f"registry.example.com/sgpud:{sgpud.__version__}"
"""What the overlays call it."""


@contextmanager
def built(need_tool: Callable[[str], str]) -> Iterator[Path]:
    """An archive of the image, of the package as the tree is now; no registry is asked."""
    buildah = need_tool("buildah")
    need_tool("mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="sgpud-image-", dir="/var/tmp") as folder:
        storage, archive = f"{folder}/storage", Path(folder, "sgpud.tar")
        here = (buildah, f"--root={storage}", f"--runroot={storage}-run")
        environment = {**os.environ, "BASE": "mmdebstrap", "ROOT": storage}
        try:
            for command in (
                ("tools/deb",),
                ("tools/image", NAME),
                (*here, "push", "--quiet", NAME, f"docker-archive:{archive}:{NAME}"),
            ):
                done = subprocess.run(
                    command, cwd=ROOT, env=environment,
                    capture_output=True, text=True, timeout=600, check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
            yield archive
        finally:
            # The storage holds mounts until buildah lets go of them.
            subprocess.run([*here, "rm", "--all"], capture_output=True, timeout=60, check=False)
            overlay = f"{storage}/overlay"
            subprocess.run(["umount", "-R", overlay], capture_output=True, timeout=60, check=False)
