"""The keys that say what makes a GPU sick, and how it comes back: [health]."""

from __future__ import annotations

from sgpud.config.schema.formats import duration
from sgpud.config.schema.kinds import Boolean, Integer, Key, ListOf, Text
from sgpud.core.health.causes import HOLD_DOWN, TRUST_FOR
from sgpud.core.units import format_duration

_LAST_XID = 2**31 - 1
_HOUR = 3600.0
_XIDS = ListOf(Integer(1, _LAST_XID), "a list of XIDs such as [48, 95]", 1000, repeats=True)


def _class(name: str, doc: str) -> Key:
    """A list of XIDs that are of one class here, whatever sgpud's table says."""
    return Key(name, _XIDS, [], doc)


HEALTH = (
    Key(
        "hold_down",
        Text('a duration in quotes such as "60s"', duration(0, _HOUR)),
        format_duration(HOLD_DOWN),
        "How long nothing must have happened to a GPU that was sick before it is given out again;"
        " then three probes in a row have to pass as well. A GPU that falls sick three times in ten"
        " minutes waits twice as long, and so on.",
    ),
    _class(
        "ignore",
        "XIDs that are counted and logged and change nothing, over sgpud's own table, which"
        " `sgpud xids` prints. An XID stands in one of these four lists at most; one that is in no"
        " list and not in the table is counted and logged only.",
    ),
    _class(
        "restart",
        "XIDs after which the application that was hit starts again: as ignore, but said so.",
    ),
    _class(
        "reset",
        "XIDs after which a GPU is Unhealthy, with all its shares, until it was reset.",
    ),
    _class(
        "reboot",
        "XIDs after which a GPU is Unhealthy, with all its shares, until the node has booted.",
    ),
    Key(
        "trust_last_known",
        Boolean(),
        default=True,
        doc="Whether the GPUs known last are listed at start before they could be read: held shares"
        " Healthy, unless their GPU is known to be sick, and free ones withheld. After a reboot the"
        " kubelet admits pods with held shares again only if these are listed within about a second"
        " of its own start, and a driver can take longer.",
        restart=True,
    ),
    Key(
        "trust_for",
        Text('a duration in quotes such as "2m"', duration(1, _HOUR)),
        format_duration(TRUST_FOR),
        "With trust_last_known: how long, until held shares too are Unhealthy.",
        restart=True,
    ),
)
