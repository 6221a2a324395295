"""Keeps this node's ResourceSlice as it should be.

The kubelet deletes every slice of its node when it starts, and may do so seconds after the driver
has published; anyone may edit or delete one. So the own slices are watched, and whatever differs
is written again: at once, then at most once a second.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer
from sgpud.cluster.calls import (
    CONFLICT,
    FORBIDDEN,
    LONGEST_PAUSE,
    NOT_FOUND,
    ApiCall,
    ApiError,
    ApiWatcher,
    pause,
)
from sgpud.cluster.credentials import CredentialsError
from sgpud.cluster.reflector import Reflector, ReflectorObserver
from sgpud.core.dra.objects import (
    API,
    EXCLUSIVE,
    SliceOwner,
    StoredSlice,
    difference,
    gates_missing,
    same_but_for_order,
    slice_document,
    slice_of,
)
from sgpud.core.dra.slices import Device

SLICES = f"/apis/{API}/resourceslices"
WRITE_APART = 1.0
"""Seconds between two writes at least."""
GATES_AGAIN = 60.0
"""Seconds until a server that lacks a feature is asked again."""
SEEN_WITHIN = 5.0
"""Seconds until a write has to come through the watch."""


@frozen
class SliceStatus:
    """What became of the slice."""

    problem: str = ""
    """Why it is not as it should be, or empty."""
    published: bool = False
    """Whether the API server has it as it should be."""
    name: str = ""
    missing: tuple[str, ...] = ()
    """Feature gates that the cluster lacks."""
    writes: int = 0
    repairs: int = 0
    """Writes after someone else had changed or deleted it."""
    errors: Mapping[tuple[str, int], int] = field(factory=dict)
    """Failed calls, by method and status."""


class SlicePublisher:
    """Publishes the devices that it is given, as one slice."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        api: ApiWatcher,
        changed: Callable[[], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`changed` is called when the status has changed; `jitter` gives 0 to 1."""
        self.status = SliceStatus()
        self.reorder_every = 10.0
        """Seconds between two writes that change the order of the devices only."""
        self._clock = clock
        self._api = api
        self._changed = changed
        self._jitter = jitter
        self._owner: SliceOwner | None = None
        self._devices: tuple[Device, ...] | None = None
        self._seen: dict[str, StoredSlice] | None = None
        """The slices of this node and driver, as they are known to be; None: not listed yet."""
        self._accepted: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
        """The last spec that was sent, and what the server made of it."""
        self._told_of: deque[tuple[str, str]] = deque(maxlen=64)
        """UID and version of what the watch told last."""
        self._awaited: tuple[str, str] | None = None
        """What was written, and has not come through the watch yet: it may have been deleted again
        by then, so that only the watch says what there is."""
        self._checked = False
        self._written_at = float("-inf")
        self._failures = 0
        self._errors: Counter[tuple[str, int]] = Counter()
        self._next = Timer(clock)
        self._writing = False
        self._again = False
        self._reflector = Reflector(
            clock,
            api,
            SLICES,
            ReflectorObserver(self._listed, self._event, self._lost, self._died),
            jitter=jitter,
        )
        self._running: Deferred[None] | None = None
        self._enabled = False
        self._stopped = False
        self.dead = False
        """Whether a part of it has failed and does not run any more."""

    def start(self, driver: str, node: str) -> None:
        """Watch the slices of this node and driver; nothing is written before `enable`."""
        if self._owner is None:
            self._owner = SliceOwner(driver, node)
            self._reflector.start(f"spec.nodeName={node},spec.driver={driver}")

    def enable(self) -> None:
        """The kubelet knows the driver: a pod that is bound now can be prepared."""
        if not self._enabled:
            self._enabled = True
            self._enqueue(0.0)

    def publish(self, devices: Sequence[Device] | None) -> None:
        """Have these devices published; None: nothing is known yet, leave what there is."""
        wanted = None if devices is None else tuple(devices)
        if wanted != self._devices:
            self._devices = wanted
            self._enqueue(0.0)

    def stop(self) -> None:
        """Write and watch no more; the slice stays."""
        self._stopped = True
        self._next.cancel()
        self._reflector.stop()
        if self._running is not None:
            self._running.cancel()

    # Watching. -----------------------------------------------------------------------------------

    def _listed(self, items: list[dict[str, Any]]) -> None:
        self._seen = {each.name: each for each in map(slice_of, items)}
        self._awaited = None
        self._enqueue(0.0)

    def _event(self, kind: str, document: dict[str, Any]) -> None:
        if self._seen is None:
            return
        found = slice_of(document)
        self._told_of.append((found.uid, found.version))
        if self._awaited == (found.uid, found.version):
            self._awaited = None
        if kind == "DELETED":
            self._seen.pop(found.name, None)
        else:
            self._seen[found.name] = found
        self._enqueue(0.0)

    def _lost(self, doing: str, error: ApiError | CredentialsError) -> None:
        if isinstance(error, CredentialsError):
            self._tell(str(error))
            return
        if error.status:
            self._seen = None
        self._errors[doing, error.status] += 1
        self._tell(f"cannot {doing} ResourceSlices: {error}")

    # Writing. ------------------------------------------------------------------------------------

    def _enqueue(self, delay: float) -> None:
        if not self._stopped:
            self._next.at_most(delay, self._sync)

    def _sync(self) -> None:
        if self._writing:
            self._again = True
            return
        self._writing, self._again = True, False
        self._running = Deferred.fromCoroutine(self._write())
        self._running.addErrback(self._died)
        self._running.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._writing = False
        if self._again:
            self._enqueue(0.0)

    async def _write(self) -> None:
        try:
            delay = await self._written()
            self._failures = 0
        except ApiError as error:
            self._failures += 1
            # The watch has not reported yet that it was edited or deleted: an absent slice is 403.
            behind = error.status in (FORBIDDEN, NOT_FOUND, CONFLICT) and self._failures == 1
            if not behind:
                self._tell(f"cannot write ResourceSlices: {error}")
            delay = max(error.retry_after, pause(self._failures, self._jitter()))
        except CredentialsError as error:
            self._failures += 1
            self._tell(str(error))
            delay = pause(self._failures, self._jitter())
        if delay is not None:
            self._enqueue(delay)

    async def _written(self) -> float | None:
        """Bring the slice up to date; seconds until it is to be looked at again, or None."""
        owner, devices, seen = self._owner, self._devices, self._seen
        if not self._enabled or owner is None or devices is None or seen is None:
            return None
        if self._awaited is not None:
            wait = self._written_at + SEEN_WITHIN - self._clock.seconds()
            if wait > 0:
                return wait
            await self._reflector.list()
            return 0.0
        stored = [seen[name] for name in sorted(seen)]
        if stored[1:]:
            await self._delete(stored[-1])
            return WRITE_APART
        kept = stored[0] if stored else None
        document = slice_document(owner, devices, kept)
        wanted = document["spec"]
        if kept is not None and self._in_sync(wanted, kept):
            self._tell(self._gates_problem(), published=True, name=kept.name)
            return None
        apart = WRITE_APART
        if kept is not None and same_but_for_order(wanted, kept.spec):
            apart = max(apart, self.reorder_every)
        wait = self._written_at + apart - self._clock.seconds()
        if wait > 0:
            return wait
        if not owner.node_uid:
            owner = await self._owned(owner)
            document = slice_document(owner, devices, kept)
        if not self._checked and not await self._check(slice_document(owner, devices)):
            return GATES_AGAIN
        repair = self._accepted is not None and self._accepted[0] == _timeless(wanted)
        await self._put(document, kept, repair=repair)
        return 0.0 if self._devices != devices else None

    def _in_sync(self, wanted: Mapping[str, Any], kept: StoredSlice) -> bool:
        if not difference(wanted, kept.spec) and not difference(_timeless(kept.spec), wanted):
            return True
        # What the server drops or adds is named, and no reason to write without end.
        return self._accepted is not None and self._accepted == (
            _timeless(wanted),
            _timeless(kept.spec),
        )

    async def _owned(self, owner: SliceOwner) -> SliceOwner:
        node = await self._api.call(ApiCall("GET", f"/api/v1/nodes/{owner.node}"))
        self._owner = evolve(owner, node_uid=str(node["metadata"]["uid"]))
        return self._owner

    async def _check(self, document: Mapping[str, Any]) -> bool:
        """Whether the server knows the fields that sharing needs: tried once, without a write."""
        query = (("dryRun", "All"),)
        answer = await self._called(ApiCall("POST", SLICES, query, document))
        dropped = difference(document["spec"], answer.get("spec") or {})
        self._checked = EXCLUSIVE not in gates_missing(dropped)
        if not self._checked:
            self.status = evolve(self.status, missing=gates_missing(dropped))
            self._tell(
                "this cluster drops allowMultipleAllocations: enable the feature gate "
                f"{EXCLUSIVE} (Kubernetes 1.36 has it on); no GPU is published, since each would be"
                " given to one pod alone"
            )
        return self._checked

    async def _put(
        self, document: Mapping[str, Any], kept: StoredSlice | None, *, repair: bool
    ) -> None:
        self._written_at = self._clock.seconds()
        if kept is None:
            answer = await self._called(ApiCall("POST", SLICES, (), document))
        else:
            answer = await self._called(ApiCall("PUT", f"{SLICES}/{kept.name}", (), document))
        found = _stored(answer)
        dropped = difference(document["spec"], found.spec)
        missing = gates_missing(dropped)
        self._accepted = (_timeless(document["spec"]), _timeless(found.spec))
        written = (found.uid, found.version)
        if written not in self._told_of and not (kept and kept.version == found.version):
            self._awaited = written
        self.status = evolve(
            self.status,
            missing=missing,
            writes=self.status.writes + 1,
            repairs=self.status.repairs + repair,
        )
        if EXCLUSIVE in missing:
            self._checked = False
            await self._delete(found)
            raise ApiError(0, f"the feature gate {EXCLUSIVE} is off: the slice was deleted")
        if repair:
            self._log.info("Published {name} again: it was changed or deleted", name=found.name)
        problem = self._gates_problem()
        if dropped and not missing:
            problem = f"the API server dropped {', '.join(sorted(set(dropped))[:4])} of the slice"
        self._tell(problem, published=True, name=found.name)

    def _gates_problem(self) -> str:
        if not self.status.missing:
            return ""
        gates = " and ".join(self.status.missing)
        return f"this cluster lacks {gates}: the scheduler does not see which GPUs are unusable"

    async def _delete(self, stored: StoredSlice) -> None:
        conditions = {"preconditions": {"uid": stored.uid}}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **conditions}
        await self._called(ApiCall("DELETE", f"{SLICES}/{stored.name}", (), body))

    async def _called(self, call: ApiCall) -> dict[str, Any]:
        try:
            return await self._api.call(call)
        except ApiError as error:
            self._errors[call.method, error.status] += 1
            raise

    # Telling. ------------------------------------------------------------------------------------

    def _tell(self, problem: str, *, published: bool = False, name: str = "") -> None:
        if problem and problem != self.status.problem:
            self._log.warn("{problem}", problem=problem)
        elif not problem and self.status.problem:
            self._log.info("The ResourceSlice {name} is published again", name=name)
        elif published and not self.status.published:
            self._log.info("Published the ResourceSlice {name}", name=name)
        before = self.status
        self.status = evolve(
            before,
            problem=problem,
            published=published,
            name=name or before.name,
            errors=dict(self._errors),
        )
        if self.status != before:
            self._changed()

    def _died(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.dead = True
            self._log.failure("Publishing the ResourceSlice failed", failure)
            self._tell(f"publishing failed: {failure.value!r}")
            if not self._stopped:
                self._enqueue(LONGEST_PAUSE)


def _stored(answer: Mapping[str, Any]) -> StoredSlice:
    try:
        return slice_of(answer)
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(0, f"the answer is not a ResourceSlice: {error}") from error


def _timeless(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec without what the server alone sets."""
    devices = [
        {
            **device,
            "taints": [
                {key: value for key, value in taint.items() if key != "timeAdded"}
                for taint in device["taints"]
            ],
        }
        if device.get("taints")
        else device
        for device in spec.get("devices") or ()
    ]
    return {**spec, "devices": devices}
