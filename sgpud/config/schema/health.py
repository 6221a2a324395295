"""The keys that say what makes a GPU unhealthy, and how it recovers: [health]."""

from __future__ import annotations

from sgpud.config.schema.formats import duration
from sgpud.config.schema.kinds import Boolean, Choice, Integer, Key, ListOf, Text
from sgpud.core.health.causes import HOLD_DOWN, TRUST_FOR
from sgpud.core.health.xids import Remedy
from sgpud.core.units import format_duration

_LAST_XID = 2**31 - 1
_HOUR = 3600.0
_COUNTER = Choice(
    tuple(each.value for each in (Remedy.IGNORE, Remedy.DRAIN, Remedy.RESET, Remedy.REBOOT))
)
_XIDS = ListOf(Integer(1, _LAST_XID), "list of XIDs, e.g. [48, 95]", 1000, repeats=True)


def _class(name: str, doc: str) -> Key:
    """A list of XIDs of one class, overriding sgpud's table."""
    return Key(name, _XIDS, [], doc)


def _counter(name: str, default: Remedy, doc: str) -> Key:
    """What a counter of NVML's means."""
    means = (
        ' "ignore": nothing; "drain": no more shares are granted until three probes in a row have'
        ' passed; "reset" and "reboot": Unhealthy until then.'
    )
    return Key(name, _COUNTER, default.value, doc + means)


HEALTH = (
    Key(
        "hold_down",
        Text('duration, e.g. "60s"', duration(0, _HOUR)),
        format_duration(HOLD_DOWN),
        "How long an unhealthy GPU must have no new problem before it is shared again; then"
        " three probes in a row must pass as well. A GPU that becomes unhealthy three times in ten"
        " minutes waits twice as long, and so on.",
    ),
    _class(
        "ignore",
        "XIDs that are only counted and logged, overriding sgpud's own table, which `sgpud xids`"
        " prints. An XID may be in at most one of these four lists; one that is in no list and not"
        " in the table is ignored.",
    ),
    _class(
        "restart",
        "XIDs after which the affected application has to restart: as ignore, but logged as such.",
    ),
    _class(
        "reset",
        "XIDs after which a GPU and all its shares are Unhealthy until the GPU is reset.",
    ),
    _class(
        "reboot",
        "XIDs after which a GPU and all its shares are Unhealthy until the node reboots.",
    ),
    _counter(
        "uncorrected_ecc",
        Remedy.DRAIN,
        "What it means that more uncorrected ECC errors are counted, without an XID.",
    ),
    _counter(
        "row_remap_pending",
        Remedy.DRAIN,
        "What it means that a row of the GPU's memory waits for a reset to be remapped.",
    ),
    _counter(
        "row_remap_failure",
        Remedy.RESET,
        "What it means that a row of the GPU's memory could not be remapped.",
    ),
    Key(
        "trust_last_known",
        Boolean(),
        default=True,
        doc="Whether the last known GPUs are listed at start, before they can be read: held shares"
        " as Healthy, unless their GPU is known to be unhealthy, and free ones withheld. After a"
        " reboot, the kubelet readmits pods with held shares only if these are listed within about"
        " a second of its own start, and a driver can take longer.",
        restart=True,
    ),
    Key(
        "trust_for",
        Text('duration, e.g. "2m"', duration(1, _HOUR)),
        format_duration(TRUST_FOR),
        "With trust_last_known: for how long; then held shares become Unhealthy too.",
        restart=True,
    ),
)
