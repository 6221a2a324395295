"""The values of the registration machine: phases, state, events and effects."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Phase(Enum):
    """Where a pool's registration stands."""

    ABSENT = "no kubelet"
    SERVING = "serving"
    REGISTERING = "registering"
    AWAITING = "awaiting the stream"
    LIVE = "live"
    RETIRING = "retiring"
    WAITING = "waiting to try again"
    STOPPING = "stopping"
    STOPPED = "stopped"


@frozen
class State:
    """The state of one pool's registration."""

    phase: Phase = Phase.ABSENT
    generation: int = 0
    """Counts the endpoints; 0 before the first."""
    attempt: int = 0
    """Tries in a row that did not lead to a stable stream."""
    streams: int = 0
    """Live streams of this generation."""
    settled: bool = False
    """Whether the stream has lived for `STABLE_AFTER`: its loss is then retried at once."""
    present: bool = False
    """Whether kubelet.sock is there."""
    woken: bool = False
    """A new kubelet.sock was seen during a try: when the try fails, the next one is at once."""
    problem: str = ""
    """Why the last try failed, or empty."""


# What the machine is told.


@frozen
class KubeletSeen:
    """kubelet.sock is there, and it is another one than before."""


@frozen
class KubeletGone:
    """kubelet.sock is not there."""


@frozen
class Served:
    """The endpoint listens."""

    generation: int


@frozen
class ServeFailed:
    """The endpoint could not be made."""

    generation: int
    problem: str


@frozen
class Registered:
    """Register was answered."""

    generation: int


@frozen
class Refused:
    """Register failed, or was not answered in time."""

    generation: int
    problem: str


@frozen
class Streams:
    """ListAndWatch streams were opened or ended; so many live now."""

    generation: int
    live: int


@frozen
class Retired:
    """The endpoint is gone, and its streams with it."""

    generation: int


@frozen
class TimeUp:
    """The wait is over."""

    generation: int


@frozen
class Stop:
    """No more registration: the daemon stops, or the pool goes."""


Event = (
    KubeletSeen
    | KubeletGone
    | Served
    | ServeFailed
    | Registered
    | Refused
    | Streams
    | Retired
    | TimeUp
    | Stop
)


# What the machine says to do.


@frozen
class Serve:
    """Make an endpoint of this generation; answer Served or ServeFailed."""

    generation: int


@frozen
class Register:
    """Call Register for the endpoint; answer Registered or Refused."""

    generation: int


@frozen
class Retire:
    """End the endpoint and its streams; answer Retired."""

    generation: int


@frozen
class Wait:
    """Answer TimeUp after so many seconds. A change of phase ends the wait of the one before."""

    generation: int
    seconds: float


Effect = Serve | Register | Retire | Wait
