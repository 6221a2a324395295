#!/usr/bin/env python3
"""Writes docs/health.md: the health machine as a diagram and tables, from the code itself.

Run it as `python -m tools.health_page` in the repository's root after a change of the machine, of
the recovery actions or of the XIDs; a test tells when that was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sgpud.core.health.causes import HOLD_DOWN, RECOVERY, TRUST_FOR, reset_steps
from sgpud.core.health.machine import EDGES, FLAP_WINDOW, FLAPS, PASSES, SUSPECT_FOR, HealthPhase
from sgpud.core.health.xids import CATALOGUE, EDITION, TABLE_CLASSES, XIDS, Remedy

PAGE = Path(__file__).resolve().parents[1] / "docs" / "health.md"

ROWS = (
    ("healthy", "nothing is wrong", "Healthy", "Healthy"),
    ("ignore", "an XID of the class `ignore`: counted and logged", "Healthy", "Healthy"),
    ("restart", "an XID of the class `restart`: counted and logged", "Healthy", "Healthy"),
    ("unknown", "an XID that is in no list: counted and logged", "Healthy", "Healthy"),
    ("suspect", "a call is overdue, an unclear NVML error, XID 154", "withheld", "Healthy"),
    ("reset", "an XID of the class `reset`", "Unhealthy", "Unhealthy, kept"),
    ("reboot", "an XID of the class `reboot`", "Unhealthy", "Unhealthy, kept"),
    ("ecc", "a double-bit ECC error", "Unhealthy", "Unhealthy, kept"),
    ("lost", "NVML says that the GPU is lost", "Unhealthy", "Unhealthy, kept"),
    ("probation", "it was unhealthy, and its cause is gone", "withheld", "Healthy"),
    ("cordoned", "the operator's `sgpud cordon`", "withheld", "Healthy"),
)
"""Name in the tests, what is so, and how free and held shares are listed."""

_PAGE = """\
# Health

When a GPU is given out, when not, and how it recovers. Generated from the code by
`python -m tools.health_page`: change `machine.py`, `causes.py` or `xids.py` in `sgpud/core/health`,
not this page.

Health belongs to the GPU: all its shares follow it, in every pool. A physical GPU and each of its
MIG instances have a health of their own; an instance is never healthier than its physical GPU. An
event that names a GPU instance concerns that instance alone.

## What each state does to shares

{states}

*Withheld* shares are listed Unhealthy, so that no pod gets them any more; one that the kubelet
chose before that is still given. *Kept* means that the share stays listed while a pod holds it.
When NVML itself cannot be used (no driver, `sgpud release`), GPUs are unknown and not unhealthy:
free shares are withheld, held ones stay Healthy.

## The machine

```mermaid
{diagram}
```

- A probe passes when it reads the GPU without an error, the driver asks for nothing (recovery
  action 0) and no new ECC errors are counted. Nothing but probes that pass makes a GPU healthy.
- A suspicion lasts {suspect:.0f} s at most. One probe that passes ends it.
- A GPU that was lost, hung or gone is on probation once it can be read and nothing has happened
  for `hold_down` ({hold:.0f} s). It is healthy after {passes} probes in a row have passed there.
- A cause that needs a reset or a reboot never ends by time. It ends when the reset was seen
  (the driver was reloaded, or its recovery action is none again), when the node was rebooted,
  or when the operator runs `sgpud heal`. Reloading the driver does not end a reboot cause.
- {flaps} failures within {window:.0f} minutes double the hold-down, and each further one
  doubles it again.
- Its causes and cordons are kept in the state directory. A restart of sgpud or of the
  kubelet changes nothing. A boot counts as the reset and the reboot, once: what comes back after
  it, without a healthy time between, stays until `sgpud heal`.

## Recovery action

NVML's field 230, which drivers from R565 on report, read with each probe; XID 154 says that it
changed.

{recovery}

Any other value changes nothing.

## Counters

With each probe: more uncorrected ECC errors without an XID (`[health] uncorrected_ecc`), a row of
memory that waits for a reset to be remapped (`row_remap_pending`), and one that could not be
(`row_remap_failure`). Each is `ignore`, `drain`, `reset` or `reboot`; the defaults follow NVIDIA's
memory error management. The metrics `sgpud_gpu_uncorrected_ecc_errors`,
`sgpud_gpu_row_remap_pending` and `sgpud_gpu_row_remap_failed` show them whatever they mean.

## XIDs

`sgpud xids` prints the table with meanings, sources, and what the configuration changes in it:
`[health] ignore`, `restart`, `reset` and `reboot` are lists of XIDs, one for each class;
`probe` is for XIDs whose details, which NVML does not report, decide: the GPU is suspect until a
probe has read its recovery action.

{classes}

An XID that is in no list is counted (`sgpud_gpu_xids_total`) and logged, and changes nothing: a
new driver must not drain nodes. The classes follow NVIDIA's catalogue (edition {edition}):
<{catalogue}>. An immediate action RESTART_APP is `ignore` where the catalogue sends the
investigation to the application, and for XIDs that NVIDIA's own device plugin passes over
(<https://github.com/NVIDIA/k8s-device-plugin>, `internal/rm/health.go`); elsewhere it is `restart`.
Some XIDs are for some architectures only; `sgpud xids` says which. XIDs of Volta and older GPUs
have the meanings of the table too, since a number keeps its meaning.

## What to do

To reset a GPU under a running sgpud, in this order: {reset}.

| command | does |
|---|---|
| `sgpud cordon GPU` | gives no more of its shares out, held ones stay; outlives restarts, boots |
| `sgpud uncordon GPU` | ends that |
| `sgpud heal GPU` | takes your word: probation without the hold-down, whatever the cause was |
| `sgpud release`, `sgpud acquire` | lets go of the driver for a reset or an update, and back |

Each change of health is logged with its reason and what to do. `sgpud plan`, the systemd status
line and the metrics `sgpud_gpu_health`, `sgpud_gpu_cordoned` and `sgpud_gpu_xids_total` show it.

## At start

With `[health] trust_last_known` the GPUs that were known last are listed before the first probe
has answered: held shares Healthy, unless their GPU was unhealthy in this boot, and free ones
withheld. What the probe confirms is given out, and what it denies is withdrawn in two steps.
Without a probe for `trust_for` ({trust:.0f} s) held shares turn Unhealthy too. A state file that is
damaged, or of another version, is renamed to `gpus.json.corrupt`, and nothing is trusted.
"""


def page() -> str:
    """The whole page."""
    return _PAGE.format(
        states=_table(
            ("state", "free shares", "held shares"),
            ((_state(name, text), free, held) for name, text, free, held in ROWS),
        ),
        diagram="\n".join(_diagram()),
        suspect=SUSPECT_FOR,
        hold=HOLD_DOWN,
        passes=PASSES,
        flaps=FLAPS,
        window=FLAP_WINDOW / 60,
        recovery=_table(
            ("action", "means", "the GPU is"),
            (
                (str(action), text, _phase_of(remedy).value)
                for action, (remedy, text) in RECOVERY.items()
            ),
        ),
        classes=_table(
            ("class", "XIDs"), ((f"`{each.value}`", _numbers(each)) for each in TABLE_CLASSES)
        ),
        edition=EDITION,
        catalogue=CATALOGUE,
        reset=reset_steps("UUID"),
        trust=TRUST_FOR,
    )


def _state(name: str, text: str) -> str:
    phase = name if name in {each.value for each in HealthPhase} else ""
    return f"**{phase}**: {text}" if phase else text


def _diagram() -> Iterable[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {HealthPhase.HEALTHY.value}"
    for edge in EDGES:
        yield f"    {edge.source.value} --> {edge.target.value}: {edge.when}"


def _phase_of(remedy: Remedy) -> HealthPhase:
    return HealthPhase.PROBATION if remedy is Remedy.DRAIN else HealthPhase.UNHEALTHY


def _numbers(remedy: Remedy) -> str:
    numbers = sorted(xid.number for xid in XIDS if xid.remedy is remedy)
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(
        f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part))  # noqa: PLR2004
        for part in parts
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
