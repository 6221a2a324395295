"""A container image of one static busybox, made on the spot: no registry is asked for anything."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

NAME = "sgpud.test/box:1"
"""What the archive's image is called; it serves as the pods' image and as their sandbox's."""
APPLETS = ("env", "grep", "sh", "sleep")
"""What the commands of examples/ call, beside the driver's `nvidia-smi`."""


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def write_archive(busybox: Path, target: Path) -> None:
    """Write a docker archive that `ctr images import` takes, with `/busybox` and its applets.

    As a sandbox the image waits for ever; pods name their own command. What a driver would mount
    for them to call is there and says nothing.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        _add(layer, "busybox", busybox.read_bytes(), 0o755)
        _add(layer, "bin/nvidia-smi", b"#!/bin/sh\n", 0o755)
        for applet in APPLETS:
            _link(layer, f"bin/{applet}", "/busybox")
    layer_bytes = buffer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/busybox", "tail", "-f", "/dev/null"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer_bytes).hexdigest()}"],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        _add(archive, "layer.tar", layer_bytes)
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())
