"""Explains the state of a pod, a share or a GPU from current facts and past decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from sgpud.core.allocation.decisions import KEPT, Decision, DecisionKind
from sgpud.core.explain.gpus import about_gpu, about_share
from sgpud.core.explain.pods import about_pod
from sgpud.core.explain.sentences import Findings, HeldView, all_held
from sgpud.core.gpu.gpu import same_uuid, uuid_key
from sgpud.core.health.node_health import UnknownGpuError, find
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.share_id import parse_share_id
from sgpud.core.status.decisions import DecisionView, choice_of, decision_view
from sgpud.core.status.view import NodeView

SHOWN = 40
"""Decisions in an answer at most: the last ones."""
SHORTEST = 8
"""The least characters of a UUID that can name a GPU, if they are unique."""
_UUIDS = ("GPU-", "MIG-")
"""How UUIDs begin on most machines; a pod's name never does."""


@frozen
class Explanation:
    """An answer: sentences first, then the evidence."""

    about: str
    subject: str
    """pod, share or gpu."""
    answer: tuple[str, ...]
    holders: tuple[HeldView, ...]
    """The holders of what was asked about."""
    decisions: tuple[DecisionView, ...]
    """The related decisions, the oldest first."""
    left_out: int
    """The number of older related decisions."""
    kept: int
    """The number of recorded decisions,"""
    most: int
    """its limit,"""
    since: float
    """and the time of the oldest, in seconds since the epoch; 0: there is none."""


@frozen
class Evidence:
    """Everything that an explanation is made from."""

    node: Node
    plan: Plan | None
    seen: NodeView
    decisions: tuple[Decision, ...]
    """The oldest first."""


def explain(about: str, known: Evidence) -> Explanation:
    """The explanation of a pod, a share or a GPU; UnknownGpuError for an unknown GPU.

    `about` is a share id, a GPU's UUID (or the beginning of one) or index, or else a pod: NAME,
    NAMESPACE/NAME or UID.
    """
    share = parse_share_id(about)
    unreadable = next((gpu for gpu in known.seen.unreadable if gpu.is_meant(about)), None)
    if unreadable is not None:
        findings = Findings("gpu", (f"{unreadable.named} cannot be shared: {unreadable.reason}.",))
    elif share:
        findings = about_share(share, known.node, known.plan, known.decisions)
    elif (
        about.startswith(_UUIDS)
        or (about.isascii() and about.isdigit())
        or _meant(about, list(_uuids(known)))
    ):
        findings = about_gpu(_uuid(about, known), known.seen, known.decisions)
    else:
        findings = about_pod(about, known.node, known.plan, known.seen, known.decisions)
    return _explanation(about, findings, known)


def _explanation(about: str, findings: Findings, known: Evidence) -> Explanation:
    decisions = known.decisions
    wanted = list(findings.decisions)
    for one in findings.decisions:
        choice = choice_of(one, decisions) if one.kind is DecisionKind.ALLOCATION else None
        if choice is not None and choice not in wanted:
            wanted.append(choice)
    wanted.sort(key=lambda one: one.at)
    return Explanation(
        about,
        findings.subject,
        findings.answer,
        findings.holders,
        tuple(decision_view(one, known.seen) for one in wanted[-SHOWN:]),
        max(0, len(wanted) - SHOWN),
        len(decisions),
        KEPT,
        decisions[0].at if decisions else 0.0,
    )


def _uuid(name: str, known: Evidence) -> str:
    """The UUID of the GPU that `name` refers to."""
    uuids = list(dict.fromkeys(_uuids(known)))
    found = list(find(known.node, str(int(name)))) if name.isdigit() else _meant(name, uuids)
    if len(found) != 1:
        raise UnknownGpuError(name, found or uuids)
    return found[0]


def _meant(name: str, uuids: Sequence[str]) -> list[str]:
    """The UUIDs that are the name, or begin with it; as same_uuid compares them."""
    exact = [uuid for uuid in uuids if uuid == name] or [
        uuid for uuid in uuids if same_uuid(name, uuid)
    ]
    if exact:
        return exact[:1]
    key = uuid_key(name)
    return [uuid for uuid in uuids if len(name) >= SHORTEST and uuid_key(uuid).startswith(key)]


def _uuids(known: Evidence) -> Iterator[str]:
    for gpu in known.node.gpus or ():
        yield gpu.uuid
        yield gpu.physical
    for held in all_held(known.seen):
        yield held.gpu
    for pool in known.seen.pools:
        for group in pool.gpus:
            yield group.uuid


def recent(decisions: Sequence[Decision], count: int, seen: NodeView) -> tuple[DecisionView, ...]:
    """The last `count` decisions, the newest first."""
    return tuple(decision_view(one, seen) for one in reversed(decisions[-count:]))
