"""Views of nodes, as the daemon makes them."""

from __future__ import annotations

from sgpud.core.node import Node
from sgpud.core.plan import Plan
from sgpud.core.registration import Phase, State
from sgpud.core.status import ConfigurationView, Counters, Instance, Moment, View, view
from tests.core.values import POOL

LIVE = State(Phase.LIVE)


def viewed(of: Node, made: Plan | None, state: State | None = LIVE, resource: str = POOL) -> View:
    """The view of a node that serves; `state`: of the registration of its pool."""
    return view(
        of,
        made,
        {resource: state} if state else {},
        ConfigurationView("/etc/sgpud.toml", "file"),
        Counters(),
        Instance("serving", "/var/lib/kubelet/device-plugins"),
        Moment(0.0, 1000.0),
    )
