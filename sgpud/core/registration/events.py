"""The phases and the state of a registration, the events it takes, the effects it has."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class RegistrationPhase(Enum):
    """Where a pool's registration stands."""

    ABSENT = "no kubelet"
    SERVING = "serving"
    REGISTERING = "registering"
    AWAITING = "awaiting the stream"
    LIVE = "live"
    SUPERSEDED = "superseded by another plugin"
    RETIRING = "retiring"
    WAITING = "waiting to try again"
    STOPPING = "stopping"
    STOPPED = "stopped"


@frozen
class RegistrationState:
    """The state of one pool's registration."""

    phase: RegistrationPhase = RegistrationPhase.ABSENT
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
    unshown: int = 0
    """Registrations in a row that were made because the kubelet's books showed nothing."""


class BooksContent(Enum):
    """Whose ids the kubelet's books show for a resource."""

    OURS = "ours"
    OTHERS = "another plugin's"
    NOTHING = "nothing"


# What the machine is told.


@frozen
class KubeletAppeared:
    """kubelet.sock is there, and it is another one than before."""


@frozen
class KubeletVanished:
    """kubelet.sock is not there."""


@frozen
class EndpointServed:
    """The endpoint listens."""

    generation: int


@frozen
class EndpointFailed:
    """The endpoint could not be made."""

    generation: int
    problem: str


@frozen
class RegisterAnswered:
    """Register was answered."""

    generation: int


@frozen
class RegisterRefused:
    """Register failed, or was not answered in time."""

    generation: int
    problem: str


@frozen
class StreamsChanged:
    """ListAndWatch streams were opened or ended; so many live now."""

    generation: int
    live: int


@frozen
class BooksRead:
    """The kubelet's books were read: whose ids they show, and for how long."""

    generation: int
    shows: BooksContent
    seconds: float
    """For how long every reading of this generation has shown that."""
    listing: bool = True
    """Whether Healthy shares are listed: without one there is nothing of ours to be shown."""
    example: str = ""
    """An id of the other plugin."""


@frozen
class EndpointRetired:
    """The endpoint is gone, and its streams with it."""

    generation: int


@frozen
class TimerExpired:
    """The wait is over."""

    generation: int


@frozen
class StopRequested:
    """No more registration: the daemon stops, or the pool goes."""


Event = (
    KubeletAppeared
    | KubeletVanished
    | EndpointServed
    | EndpointFailed
    | RegisterAnswered
    | RegisterRefused
    | StreamsChanged
    | BooksRead
    | EndpointRetired
    | TimerExpired
    | StopRequested
)


# What the machine says to do.


@frozen
class ServeEndpoint:
    """Make an endpoint of this generation; answer Served or EndpointFailed."""

    generation: int


@frozen
class CallRegister:
    """Call Register for the endpoint; answer Registered or Refused."""

    generation: int


@frozen
class RetireEndpoint:
    """End the endpoint and its streams; answer Retired."""

    generation: int


@frozen
class StartTimer:
    """Answer TimerExpired after so many seconds. A change of phase cancels an earlier timer."""

    generation: int
    seconds: float


@frozen
class HoldLists:
    """Send no more lists on this endpoint: one would replace the other plugin's."""

    generation: int


Effect = ServeEndpoint | CallRegister | RetireEndpoint | StartTimer | HoldLists
