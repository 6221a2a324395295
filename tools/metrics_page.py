#!/usr/bin/env python3
"""Writes docs/metrics.md: every metric with its labels and what it tells, from the code itself.

`python -m tools.metrics_page`; a test holds the page current.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sgpud.serve.metrics.dra import DRA
from sgpud.serve.metrics.families import MetricFamily, MetricType
from sgpud.serve.metrics.gpus import GPUS
from sgpud.serve.metrics.node import NODE

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
_PAGE = """\
# Metrics

`/metrics` is served on the socket `/run/sgpud/status.sock`, and on `[http] listen` if set,
for every machine that can reach it. It is made from the same snapshot as the
[status document](status.md), at each scrape: what is gone has no series, and what was measured has
one while it is fresh. An unknown number has no sample, and is never shown as 0.

This page is generated from the code: `python -m tools.metrics_page`.

## GPUs, shares and containers

`gpu` is the UUID of a GPU or of a MIG instance; `sgpud_gpu_info` joins its product to it.

{gpus}

## sgpud itself

{node}

## The driver of Dynamic Resource Allocation

With `[kubelet] api = "dra"` only ([dra.md](dra.md)).

{dra}

Beside these there are those of the process: `process_resident_memory_bytes`,
`process_cpu_seconds_total`, `process_open_fds`, `process_start_time_seconds`.
"""


def page() -> str:
    """The whole page."""
    return _PAGE.format(gpus=_table(GPUS), node=_table(NODE), dra=_table(DRA))


def _table(families: Iterable[MetricFamily]) -> str:
    return "\n".join(["| metric | labels | meaning |", "|---|---|---|", *_rows(families)])


def _rows(families: Iterable[MetricFamily]) -> Iterator[str]:
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        names = [f"`{family.shown}`"]
        if family.kind is MetricType.SUMMARY:
            names = [f"`{family.name}_count`", f"`{family.name}_sum`"]
        yield f"| {'<br>'.join(names)} | {labels} | {family.text} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
