"""A prepared claim as a file of the state directory: versioned, with a checksum over its content.

Keys that this version does not know are ignored, so that an older sgpud can read what a newer one
wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from sgpud.core.dra.claims import AllocatedClaim, AllocatedShare, ClaimPod, PreparedClaim
from sgpud.core.dra.injecting import InjectedClaim, PreparedDevice
from sgpud.core.errors import SgpudError
from sgpud.core.json_checks import is_a, number, uuid_of
from sgpud.files import read_regular, replace_file

FORMAT = 1
LARGEST = 1 << 20
"""Bytes of a file; a claim with 32 devices has some 30 KiB."""
_MOST = 64
"""Devices of one claim, and pods; the API allows 32 and 256."""
_MOST_PODS = 256


class RecordError(SgpudError):
    """A file that is not a prepared claim."""


@frozen
class ClaimRecord:
    """A prepared claim, and the boot in which it was."""

    injected: InjectedClaim
    boot: str

    @property
    def uid(self) -> str:
        """The claim's UID."""
        return self.injected.prepared.uid


def dumped(record: ClaimRecord) -> bytes:
    """The content of the file."""
    prepared, claim = record.injected.prepared, record.injected.prepared.claim
    content = {
        "boot": record.boot,
        "claim": {
            "uid": claim.uid,
            "namespace": claim.namespace,
            "name": claim.name,
            "extended_resource": claim.extended_resource,
            "pods": [{"uid": pod.uid, "name": pod.name} for pod in claim.pods],
            "shares": [
                {
                    "request": share.request,
                    "pool": share.pool,
                    "device": share.device,
                    "share_id": share.share_id,
                    "consumed": dict(share.consumed),
                }
                for share in claim.shares
            ],
        },
        "uuids": dict(prepared.uuids),
        "since": prepared.since,
        "cdi": [list(device.cdi) for device in record.injected.devices],
        "spec": record.injected.spec,
    }
    document = {"format": FORMAT, "checksum": _checksum(content), "content": content}
    return json.dumps(document, indent=1).encode() + b"\n"


def loaded(raw: bytes) -> ClaimRecord:
    """Parse a file; RecordError for everything that no version of this format has written."""
    try:
        document = is_a(dict, json.loads(raw))
        if document.get("format") != FORMAT:
            raise RecordError(f"unsupported format {document.get('format')!r}, expected {FORMAT}")
        content = is_a(dict, document["content"])
        if document.get("checksum") != _checksum(content):
            raise RecordError("the checksum differs")
        return _record(content)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from error


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _record(content: Mapping[str, Any]) -> ClaimRecord:
    claim = _claim(is_a(dict, content["claim"]))
    named = is_a(dict, content["uuids"])
    uuids = {is_a(str, device): uuid_of(uuid) for device, uuid in named.items()}
    prepared = PreparedClaim(claim, uuids, number(content["since"]))
    cdi = [tuple(is_a(str, name) for name in is_a(list, names)) for names in _few(content["cdi"])]
    devices = tuple(
        PreparedDevice(share.request, share.pool, share.device, share.share_id, names)
        for share, names in zip(claim.shares, cdi, strict=True)
    )
    return ClaimRecord(
        InjectedClaim(prepared, is_a(str, content["spec"]), devices), is_a(str, content["boot"])
    )


def _claim(entry: Mapping[str, Any]) -> AllocatedClaim:
    return AllocatedClaim(
        is_a(str, entry["uid"]),
        is_a(str, entry["namespace"]),
        is_a(str, entry["name"]),
        tuple(_share(is_a(dict, each)) for each in _few(entry["shares"])),
        tuple(
            ClaimPod(is_a(str, each["uid"]), is_a(str, each["name"]))
            for each in is_a(list, entry["pods"])[:_MOST_PODS]
        ),
        extended_resource=is_a(bool, entry["extended_resource"]),
    )


def _share(entry: Mapping[str, Any]) -> AllocatedShare:
    consumed = {is_a(str, key): number(value) for key, value in entry["consumed"].items()}
    request, pool, device, share_id = (
        is_a(str, entry[key]) for key in ("request", "pool", "device", "share_id")
    )
    return AllocatedShare(request, pool, device, share_id, consumed)


def _few(entries: object) -> list[Any]:
    found = is_a(list, entries)
    if len(found) > _MOST:
        reason = f"{len(found)} entries"
        raise ValueError(reason)
    return found


class RecordFolder:
    """The folder of the state directory that holds a file for each prepared claim.

    Written by the thread that prepares the claim, since the kubelet is told only what is kept.
    """

    _log = Logger()

    def __init__(self, path: Path) -> None:
        """The folder is created with the first file."""
        self._path = path

    def read_all(self) -> Iterator[tuple[str, bytes]]:
        """The UID and the content of each file that can be read; the others are logged."""
        try:
            found = sorted(self._path.iterdir())
        except OSError:
            found = []
        for path in found:
            if path.name.startswith("."):
                with suppress(OSError):  # a draft of a process that was killed
                    path.unlink()
                continue
            if path.suffix != ".json":
                continue
            try:
                content = read_regular(path, LARGEST)
            except OSError as problem:
                self._log.error(
                    "Cannot read {path}: {problem}",
                    path=str(path),
                    problem=problem.strerror or str(problem),
                )
            else:
                yield path.stem, content

    def write(self, uid: str, content: bytes) -> None:
        """Replace a claim's file: after a crash there is the old content or the new one.

        The disk is not waited for, which takes longer than all the rest: what a power failure takes
        away is of the last seconds, and the kubelet has such claims prepared again.
        """
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path / f"{uid}.json", content, durable=False)

    def remove(self, uid: str) -> None:
        """Remove a claim's file; one that is not there is no error."""
        (self._path / f"{uid}.json").unlink(missing_ok=True)

    def set_aside(self, uid: str) -> Path:
        """Rename a corrupt file, for inspection; its new path."""
        target = self._path / f"{uid}.json"
        aside = target.with_suffix(".corrupt")
        with suppress(OSError):
            target.replace(aside)
        return aside


def claim_names(folder: Path) -> list[str]:
    """The claims that are kept in a folder: by namespace and name, or by UID."""

    def name(uid: str, content: bytes) -> str:
        try:
            claim = loaded(content).injected.prepared.claim
        except RecordError:
            return uid
        return f"{claim.namespace}/{claim.name}"

    return sorted(name(*each) for each in RecordFolder(folder).read_all())
