"""What a configuration means for the slice that a node publishes."""

from __future__ import annotations

from sgpud.config.values import Config, DeviceOrder, Evict
from sgpud.core.dra.slices import DraSettings
from sgpud.core.sharing.rules import Placement


def dra_settings(config: Config) -> DraSettings:
    """The `[dra]` section, with the order of devices that it or `[sharing] placement` says."""
    dra = config.dra
    fixed = {
        DeviceOrder.PACKED: Placement.PACKED,
        DeviceOrder.SPREAD: Placement.SPREAD,
        DeviceOrder.FIXED: None,
    }
    # A device plugin grants memory shares by best fit, whatever the placement.
    follows = dra.order is DeviceOrder.PLACEMENT
    places = config.sharing.placement if follows else fixed[dra.order]
    memory = Placement.PACKED if follows else fixed[dra.order]
    return DraSettings(dra.default_memory, dra.evict is Evict.UNHEALTHY, places, memory)
