"""Which order of GPUs a configuration means under DRA."""

from __future__ import annotations

import pytest

from sgpud.config.dra_settings import dra_settings
from sgpud.config.load import parse
from sgpud.core.sharing.rules import Placement


@pytest.mark.parametrize(
    ("text", "places", "memory"),
    [
        ("", Placement.SPREAD, Placement.PACKED),
        ('[sharing]\nplacement = "packed"', Placement.PACKED, Placement.PACKED),
        ('[dra]\norder = "spread"', Placement.SPREAD, Placement.SPREAD),
        ('[dra]\norder = "fixed"', None, None),
    ],
)
def test_the_order_follows_what_the_device_plugin_does_unless_it_is_set(
    text: str, places: Placement | None, memory: Placement | None
) -> None:
    settings = dra_settings(parse(text, "sgpud.toml"))
    assert (settings.placement, settings.memory_placement) == (places, memory)
