"""The phases and the state of a registration, its events and its effects."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class RegistrationPhase(Enum):
    """The phases of a pool's registration."""

    ABSENT = "no kubelet"
    SERVING = "serving"
    REGISTERING = "registering"
    AWAITING = "awaiting the stream"
    LIVE = "live"
    SUPERSEDED = "superseded by another plugin"
    RETIRING = "retiring"
    WAITING = "waiting to retry"
    STOPPING = "stopping"
    STOPPED = "stopped"


@frozen
class RegistrationState:
    """The state of one pool's registration."""

    phase: RegistrationPhase = RegistrationPhase.ABSENT
    generation: int = 0
    """The number of its endpoint; 0 before the first."""
    attempt: int = 0
    """Consecutive attempts that did not lead to a stable stream."""
    streams: int = 0
    """Live streams of this generation."""
    settled: bool = False
    """Whether the stream has lived for `STABLE_AFTER`: its loss is then retried at once."""
    present: bool = False
    """Whether kubelet.sock exists."""
    woken: bool = False
    """A new kubelet.sock appeared during an attempt: if that fails, the next follows at once."""
    problem: str = ""
    """Why the last attempt failed, or empty."""
    reclaims: int = 0
    """Consecutive registrations because the kubelet showed none of our shares as allocatable."""
    ours_shown: bool = False
    """Whether our ids were allocatable when they were read last."""
    displaced: bool = False
    """Whether something else was allocatable after our ids, while this endpoint was registered."""


class AllocatableOwner(Enum):
    """Whose ids the kubelet shows as allocatable for a resource."""

    OURS = "ours"
    OTHERS = "another plugin's"
    NOTHING = "nothing"


# Events.


@frozen
class KubeletAppeared:
    """kubelet.sock appeared, or was replaced."""


@frozen
class KubeletVanished:
    """kubelet.sock was removed."""


@frozen
class EndpointServed:
    """The endpoint listens."""

    generation: int


@frozen
class EndpointFailed:
    """The endpoint could not be created."""

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
    """ListAndWatch streams opened or ended; `live` are open now."""

    generation: int
    live: int


@frozen
class AllocatableRead:
    """The kubelet's allocatable ids were read: whose they are, and since when."""

    generation: int
    shows: AllocatableOwner
    seconds: float
    """For how long every reading of this generation has shown the same."""
    listing: bool = True
    """Whether Healthy shares are listed: without one, none of ours can be allocatable."""
    example: str = ""
    """An id of the other plugin."""


@frozen
class OptionsChanged:
    """The plugin's options are no longer those that the kubelet read of this endpoint."""

    generation: int


@frozen
class EndpointRetired:
    """The endpoint and its streams have ended."""

    generation: int


@frozen
class TimerExpired:
    """The timer has expired."""

    generation: int


@frozen
class StopRequested:
    """Stop registering: the daemon stops, or the pool is removed."""


Event = (
    KubeletAppeared
    | KubeletVanished
    | EndpointServed
    | EndpointFailed
    | RegisterAnswered
    | RegisterRefused
    | StreamsChanged
    | AllocatableRead
    | OptionsChanged
    | EndpointRetired
    | TimerExpired
    | StopRequested
)


# Effects.


@frozen
class ServeEndpoint:
    """Create an endpoint of this generation; answer EndpointServed or EndpointFailed."""

    generation: int


@frozen
class CallRegister:
    """Call Register for the endpoint; answer RegisterAnswered or RegisterRefused."""

    generation: int


@frozen
class RetireEndpoint:
    """End the endpoint and its streams; answer EndpointRetired."""

    generation: int


@frozen
class StartTimer:
    """Answer TimerExpired after so many seconds. A phase change cancels an earlier timer."""

    generation: int
    seconds: float


@frozen
class HoldLists:
    """Send no more lists on this endpoint: one would replace the other plugin's."""

    generation: int


Effect = ServeEndpoint | CallRegister | RetireEndpoint | StartTimer | HoldLists
