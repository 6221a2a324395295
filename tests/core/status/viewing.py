"""Views of nodes, as the daemon makes them."""

from __future__ import annotations

from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.registration.events import RegistrationPhase, RegistrationState
from sgpud.core.status.view import (
    ConfigurationView,
    Counters,
    InstanceView,
    NodeView,
    Timestamps,
    view,
)
from tests.core.values import POOL

LIVE = RegistrationState(RegistrationPhase.LIVE)


def viewed(
    of: Node, made: Plan | None, state: RegistrationState | None = LIVE, resource: str = POOL
) -> NodeView:
    """The view of a node that serves; `state`: of the registration of its pool."""
    return view(
        of,
        made,
        {resource: state} if state else {},
        ConfigurationView("/etc/sgpud.toml", "file"),
        Counters(),
        InstanceView("serving", "/var/lib/kubelet/device-plugins"),
        Timestamps(0.0, 1000.0),
    )
