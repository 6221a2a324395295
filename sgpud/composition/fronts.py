"""What is served to the kubelet: the device plugin or the driver of DRA, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from sgpud.bridge import Reactor
from sgpud.composition.cluster_link import ClusterLink
from sgpud.config.values import Config, KubeletApi
from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.text import several
from sgpud.kubelet.checkpoint import CheckpointError, read
from sgpud.kubelet.deviceplugin.plugin import DevicePlugin
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.kubelet.directory import CHECKPOINT
from sgpud.kubelet.holders import HolderTracker
from sgpud.kubelet.podresources import PodResourcesClient, PodResourcesError, list_now
from sgpud.kubelet.serving import Front
from sgpud.limits.keeper import CapKeeper
from sgpud.node.counters import EventCounters

if TYPE_CHECKING:
    from sgpud.composition.dra import Dra

MOST_NAMED = 3
"""Holders that are named in a message."""


@frozen
class PluginCalls:
    """Hears of the kubelet's calls to the device plugin."""

    counters: EventCounters
    holders: HolderTracker
    first_list: Callable[[], None]
    cluster: ClusterLink

    def refused(self, resource: str, refusal: RefusedError) -> None:
        """Allocate refused a container."""
        self.counters.refused(resource, refusal)
        self.cluster.refused(refusal)
        if not refusal.invalid:
            # The kubelet chose from what sgpud listed: have the list follow.
            self.holders.look()

    def listed(self, resource: str) -> None:
        """A list was sent."""
        self.counters.listed(resource)
        self.first_list()

    def allocatable(self, numbers: Mapping[str, int]) -> None:
        """The kubelet's books and the lists agree on these numbers of memory shares."""
        self.cluster.allocatable(numbers)

    @property
    def prompt(self) -> bool:
        """Whether a change of them is to be seen at once."""
        return self.cluster.fast_status


@frozen
class FrontParts:
    """What either of them is made of."""

    reactor: Reactor
    config: Config
    environment: Mapping[str, str]
    state: Path
    nonce: str
    publisher: SnapshotPublisher
    pod_resources: PodResourcesClient
    calls: PluginCalls
    learned: Callable[[CheckpointState], None]
    changed: Callable[[], None]
    caps: CapKeeper


def front(api: KubeletApi, parts: FrontParts) -> tuple[Front, Dra | None]:
    """What is served, twice where it is the driver of DRA."""
    if api is KubeletApi.DEVICE_PLUGIN:
        plugin = DevicePlugin(
            parts.reactor,
            parts.publisher,
            Path(parts.config.kubelet.plugin_directory),
            parts.nonce,
            parts.calls,
            parts.changed,
            parts.pod_resources.allocatable,
            parts.caps.before_start,
        )
        return plugin, None
    from sgpud.composition.dra import DaemonObserver, Dra  # noqa: PLC0415 - a device plugin does without TLS

    dra = Dra(
        parts.reactor,
        parts.config,
        parts.environment,
        parts.state,
        parts.nonce,
        DaemonObserver(
            parts.learned,
            parts.changed,
            parts.caps.before_claim,
            parts.calls.cluster.claim_refused,
        ),
    )
    return dra, dra


def holders_of(api: KubeletApi, config: Config, state: Path) -> str:
    """Who holds GPUs that this API gave, in words, or empty. It waits for the kubelet's answer."""
    return _claims(state) if api is KubeletApi.DRA else _shares(config)


def _claims(state: Path) -> str:
    # Without a claim nothing of DRA is imported.
    if not any((state / "claims").glob("*.json")):
        return ""
    from sgpud.kubelet.dra.records import claim_names  # noqa: PLC0415

    names = claim_names(state / "claims")
    return f"{several(len(names), 'claim')} prepared here ({_some(names)})"


def _shares(config: Config) -> str:
    given = "with shares of the device plugin"
    try:
        pods = [
            f"{pod.namespace}/{pod.pod}" for pod in list_now(Path(config.kubelet.pod_resources))
        ]
        return f"{several(len(pods), 'pod')} {given} ({_some(pods)})" if pods else ""
    except PodResourcesError as error:
        try:
            held = read(Path(config.kubelet.plugin_directory) / CHECKPOINT).holders
        except CheckpointError:
            held = ()
        # Finished pods stay in that file: only the kubelet can say that nobody runs any more.
        containers = several(len(held), "container")
        return f"{containers} {given} in the checkpoint ({error})" if held else ""


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(sorted(names)[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
