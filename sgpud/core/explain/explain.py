"""Explaining: why a pod, a share or a GPU is as it is, from what is known and what was decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from sgpud.core.allocation.decisions import KEPT, Decision, DecisionKind
from sgpud.core.explain.gpus import about_gpu, about_share
from sgpud.core.explain.pods import about_pod
from sgpud.core.explain.sentences import Findings, HeldView, all_held
from sgpud.core.health.node_health import UnknownGpuError, find
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.share_id import parse_share_id
from sgpud.core.status.decisions import DecisionView, choice_of, decision_view
from sgpud.core.status.view import NodeView

SHOWN = 40
"""Decisions that an answer has, at most: the last ones."""
SHORTEST = 8
"""Characters of a UUID by which a GPU can be named, where they are one GPU's alone."""
_UUIDS = ("GPU-", "MIG-")
"""What UUIDs begin with on most machines; a name that begins so is never a pod's."""


@frozen
class Explanation:
    """An answer: sentences first, then what they rest on."""

    about: str
    subject: str
    """pod, share or gpu."""
    answer: tuple[str, ...]
    holders: tuple[HeldView, ...]
    """Who holds what it is about."""
    decisions: tuple[DecisionView, ...]
    """Those that concern it, the oldest first."""
    left_out: int
    """Older ones that concern it, too."""
    kept: int
    """Decisions that are remembered at all,"""
    most: int
    """of so many at most,"""
    since: float
    """from this time on, in seconds since the epoch; 0: none is."""


@frozen
class Evidence:
    """All that an explanation is made from."""

    node: Node
    plan: Plan | None
    seen: NodeView
    decisions: tuple[Decision, ...]
    """The oldest first."""


def explain(about: str, known: Evidence) -> Explanation:
    """The explanation of a pod, a share or a GPU; UnknownGpuError for a GPU that is not here.

    `about` is an id of a share, a GPU's UUID (or the beginning of one, or its index), and else a
    pod: NAME, NAMESPACE/NAME, or its UID.
    """
    share = parse_share_id(about)
    unreadable = next((gpu for gpu in known.seen.unreadable if gpu.is_meant(about)), None)
    if unreadable is not None:
        said = Findings("gpu", (f"{unreadable.named} cannot be shared: {unreadable.reason}.",))
    elif share:
        said = about_share(share, known.node, known.plan, known.decisions)
    elif (
        about.startswith(_UUIDS)
        or (about.isascii() and about.isdigit())
        or _meant(about, list(_uuids(known)))
    ):
        said = about_gpu(_uuid(about, known), known.seen, known.decisions)
    else:
        said = about_pod(about, known.node, known.plan, known.seen, known.decisions)
    return _explanation(about, said, known)


def _explanation(about: str, said: Findings, known: Evidence) -> Explanation:
    decisions = known.decisions
    wanted = list(said.decisions)
    for one in said.decisions:
        choice = choice_of(one, decisions) if one.kind is DecisionKind.ALLOCATION else None
        if choice is not None and choice not in wanted:
            wanted.append(choice)
    wanted.sort(key=lambda one: one.at)
    return Explanation(
        about,
        said.subject,
        said.answer,
        said.holders,
        tuple(decision_view(one, known.seen) for one in wanted[-SHOWN:]),
        max(0, len(wanted) - SHOWN),
        len(decisions),
        KEPT,
        decisions[0].at if decisions else 0.0,
    )


def _uuid(name: str, known: Evidence) -> str:
    """The UUID of the one GPU that is meant."""
    uuids = list(dict.fromkeys(_uuids(known)))
    found = list(find(known.node, str(int(name)))) if name.isdigit() else _meant(name, uuids)
    if len(found) != 1:
        raise UnknownGpuError(name, found or uuids)
    return found[0]


def _meant(name: str, uuids: Sequence[str]) -> list[str]:
    """The UUIDs that a name is, or is enough of a beginning of."""
    if name in uuids:
        return [name]
    return [uuid for uuid in uuids if len(name) >= SHORTEST and uuid.startswith(name)]


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
