#!/usr/bin/env python3
"""Writes docs/registration.md, the registration machine as a diagram, from the table itself.

Run it as `python -m tools.registration_diagram` in the repository's root after a change of
sgpud/core/registration/machine.py; a test tells when that was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from sgpud.core.registration.events import Effect, Event, RegistrationPhase
from sgpud.core.registration.machine import MISSING_AFTER, TABLE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "registration.md"

_PAGE = """\
# Registration

How one pool stays registered with the kubelet. Generated from the table in
`sgpud/core/registration/machine.py` by `python -m tools.registration_diagram`: change the table,
not this page.

Registered means a live ListAndWatch stream, and that the kubelet counts what sgpud lists as
allocatable. A plugin that registers the same resource later leaves the stream alive, and so does
its end, after which the node shows no share at all. So podresources is asked once a second which
ids are allocatable. While they are another plugin's, sgpud sends no list and says so (status,
doctor, `/readyz`, `sgpud_pool_superseded`). Once they have been gone for {missing:g} s it ends its
endpoint and registers a new one: in the other order the kubelet would end the new one. A list that
sgpud sends meanwhile shows its ids again, while the kubelet sends every pod to the plugin that has
ended. So it also registers again when its ids come back after they were not shown, and checks ten
times a second for 5 s after another plugin's socket has appeared. If podresources cannot be asked,
the stream alone is enough.

The machine takes events and answers with effects; it does no I/O and reads no clock. Every answer
carries the generation of its endpoint, and a stale one is ignored. An event that has no arrow
changes no phase: KubeletAppeared and KubeletVanished are then only noted, for the next try.

```mermaid
{diagram}
```

## Events

{events}

## Effects

{effects}
"""


def page() -> str:
    """The whole page."""
    return _PAGE.format(
        diagram="\n".join(_diagram()),
        events=_described(get_args(Event)),
        effects=_described(get_args(Effect)),
        missing=MISSING_AFTER,
    )


def _diagram() -> Iterable[str]:
    arrows: dict[tuple[RegistrationPhase, RegistrationPhase], list[str]] = {}
    for (phase, event), row in TABLE.items():
        for to in row.to:
            arrows.setdefault((phase, to), []).append(event.__name__)
    yield "stateDiagram-v2"
    yield from (f'    state "{phase.value}" as {phase.name}' for phase in RegistrationPhase)
    yield f"    [*] --> {RegistrationPhase.ABSENT.name}"
    for (start, to), events in arrows.items():
        yield f"    {start.name} --> {to.name}: {', '.join(events)}"
    yield f"    {RegistrationPhase.STOPPED.name} --> [*]"


def _described(kinds: Iterable[type]) -> str:
    lines = ((kind.__name__, (kind.__doc__ or "").partition("\n")[0]) for kind in kinds)
    return "\n".join(f"- **{name}**: {text}" for name, text in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
