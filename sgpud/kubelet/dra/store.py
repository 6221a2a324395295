"""The claims that this node has prepared: in memory, in the state directory, and as CDI specs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

from twisted.logger import Logger

from sgpud.core.dra.claims import PreparedClaim
from sgpud.core.dra.injecting import InjectedClaim
from sgpud.core.errors import SgpudError
from sgpud.kubelet.dra.cdi_folder import CdiFolder
from sgpud.kubelet.dra.records import ClaimRecord, RecordError, RecordFolder, dumped, loaded

UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}", re.ASCII)
"""A claim's UID: it becomes a part of file names."""


class NotKeptError(SgpudError):
    """A claim whose files could not be written or removed."""


class ClaimStore:
    """Keeps prepared claims. Methods block, but for `claims` and `record`; any thread may call."""

    _log = Logger()

    def __init__(
        self, files: RecordFolder, cdi: CdiFolder, boot: str, changed: Callable[[], object]
    ) -> None:
        """`boot`: the id of this boot; `changed` is called, in any thread, after each change."""
        self._files = files
        self._cdi = cdi
        self._boot = boot
        self._changed = changed
        self._lock = Lock()
        self._records: dict[str, ClaimRecord] = {}

    @property
    def folder(self) -> Path:
        """Where the CDI specs are."""
        return self._cdi.path

    @property
    def claims(self) -> tuple[PreparedClaim, ...]:
        """The prepared claims."""
        with self._lock:
            return tuple(record.injected.prepared for record in self._records.values())

    def record(self, uid: str) -> ClaimRecord | None:
        """A prepared claim, or None."""
        with self._lock:
            return self._records.get(uid)

    def is_current(self, record: ClaimRecord) -> bool:
        """Whether a claim was prepared in this boot: device numbers may change with the next."""
        return bool(self._boot) and record.boot == self._boot

    def load(self) -> None:
        """Read what earlier runs kept, restore its CDI specs, and sweep those of other claims.

        After a reboot every sandbox is created again and every claim prepared again, so the specs
        of the last boot are not restored: the GPUs may have other device nodes now.
        """
        records = (self._loaded(uid, content) for uid, content in self._files.read_all())
        found = {record.uid: record for record in records if record is not None}
        with self._lock:
            self._records = found
        self._cdi.sweep(frozenset(self._specs()))
        self._cdi.restore(self._specs())
        self._changed()

    def _loaded(self, uid: str, content: bytes) -> ClaimRecord | None:
        try:
            record = loaded(content)
        except RecordError as error:
            problem = str(error)
        else:
            if record.uid == uid:
                return record
            problem = f"it is of claim {record.uid}"
        self._log.warn(
            "The file of a prepared claim is corrupt ({problem}); it was renamed to {aside}",
            problem=problem,
            aside=str(self._files.set_aside(uid)),
        )
        return None

    def guard(self) -> int:
        """Restore the CDI specs that were changed or lost; how many."""
        specs = self._specs()
        restored = self._cdi.guard(specs)
        for uid in specs:
            if self.record(uid) is None:
                self._cdi.remove(uid)
        if restored:
            self._log.warn(
                "Restored {count} CDI specs that were changed or removed", count=restored
            )
        return restored

    def _specs(self) -> dict[str, str]:
        with self._lock:
            return {
                uid: record.injected.spec
                for uid, record in self._records.items()
                if self.is_current(record)
            }

    def add(self, decide: Callable[[Sequence[PreparedClaim]], InjectedClaim]) -> InjectedClaim:
        """Keep the claim that `decide` makes of all the others, or raise what it raises.

        It counts from the moment of the decision, whatever other threads decide meanwhile.
        NotKeptError when it cannot be written: then it does not count.
        """
        with self._lock:
            others = [record.injected.prepared for record in self._records.values()]
            injected = decide(others)
            uid = injected.prepared.uid
            before = self._records.get(uid)
            record = ClaimRecord(injected, self._boot)
            self._records[uid] = record
        try:
            self._files.write(uid, dumped(record))
            self._cdi.write(uid, injected.spec)
        except OSError as error:
            with self._lock:
                if before is None:
                    self._records.pop(uid, None)
                else:
                    self._records[uid] = before
            raise NotKeptError(f"cannot write {error.filename}: {error.strerror}") from error
        self._changed()
        return injected

    def ensure_spec(self, record: ClaimRecord) -> None:
        """Have the CDI spec of a claim there; NotKeptError."""
        try:
            self._cdi.ensure(record.uid, record.injected.spec)
        except OSError as error:
            raise NotKeptError(f"cannot write {error.filename}: {error.strerror}") from error

    def remove(self, uid: str) -> bool:
        """Forget a claim; whether it was known. NotKeptError when its files cannot be removed."""
        if not UID.fullmatch(uid):
            return False
        with self._lock:
            # First of all, so that nobody restores the spec that is removed now.
            record = self._records.pop(uid, None)
        if record is None:
            return False
        try:
            self._cdi.remove(uid)
            self._files.remove(uid)
        except OSError as error:
            with self._lock:
                self._records.setdefault(uid, record)
            raise NotKeptError(f"cannot remove {error.filename}: {error.strerror}") from error
        self._changed()
        return True
