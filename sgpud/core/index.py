"""The dictionary from a share's id to its place in a pool, made once per set of ids."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from sgpud.core.numbers import Numbers
from sgpud.core.plan import Pool
from sgpud.core.share import SEPARATOR

SHIFT = 30
"""A place is `group position << SHIFT | number`: one integer sorts and groups at C speed."""


@frozen(eq=False)
class Index:
    """Where each listed id of a pool belongs."""

    places: Mapping[str, int]
    shape: tuple[tuple[str, Numbers], ...]
    """The GPUs and numbers it was made of, to know when it can be kept."""


def index(pool: Pool, previous: Index | None = None) -> Index:
    """The index of a pool; `previous` itself when the pool lists the same ids."""
    shape = tuple((group.uuid, group.listed) for group in pool.groups)
    if previous is not None and previous.shape == shape:
        return previous
    places: dict[str, int] = {}
    for position, (uuid, numbers) in enumerate(shape):
        base = position << SHIFT
        start = uuid + SEPARATOR
        places.update((start + str(number), base + number) for number in numbers)
    return Index(places, shape)
