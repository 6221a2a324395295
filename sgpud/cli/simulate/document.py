"""The outcome of a simulation as a document, for JSON and for the text of `show_simulation`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sgpud.cli.simulate.engine.summary import refusals, sums, waited, waits
from sgpud.cli.simulate.engine.values import PodOutcome, PodResult, SimulationResult

PARTS = 60
"""Parts of the picture of each GPU over time."""


def run_document(outcome: SimulationResult) -> dict[str, Any]:
    """What happened under one configuration. Times in seconds, memory in bytes."""
    sharing = outcome.cluster.sharing
    return {
        "settings": {
            "placement": sharing.placement.value,
            "advertise": sharing.advertise.value,
        },
        "nodes": outcome.cluster.nodes,
        "start": outcome.start,
        "end": outcome.end,
        "notes": list(outcome.notes),
        "summary": _summary(outcome),
        "gpus": [_gpu(outcome, number) for number in range(len(outcome.histories))],
        "pods": [_pod(entry, outcome.end) for entry in outcome.entries],
    }


def _summary(outcome: SimulationResult) -> dict[str, Any]:
    entries = outcome.entries
    ends = Counter(entry.end for entry in entries)
    waiting = [
        waited(entry, outcome.end) for entry in entries if entry.end is not PodOutcome.FAILED
    ]
    return {
        "requests": len(entries),
        **{end.value: ends[end] for end in PodOutcome},
        "failures": sum(len(entry.failures) for entry in entries),
        "failures_by_rule": refusals(outcome),
        "waited": sum(bool(entry.waits) for entry in entries),
        "waited_though_enough_was_free": sum(entry.split for entry in entries),
        "waits": waits(outcome),
        "longest_wait": max(waiting, default=0.0),
        "mean_wait": sum(waiting) / max(1, len(waiting)),
    }


def _gpu(outcome: SimulationResult, number: int) -> dict[str, Any]:
    history = outcome.histories[number]
    found = sums(outcome, history, PARTS)
    return {
        "node": history.node,
        "gpu": history.position,
        "uuid": history.gpu.uuid,
        "product": history.gpu.product,
        "memory": history.gpu.memory,
        "resource": history.resource,
        "shares": history.shares,
        "share_memory": history.each,
        "multiple": history.multiple.value,
        "peak_shares": found.peak_shares,
        "mean_shares": found.mean_shares,
        "peak_memory": found.peak_memory,
        "mean_memory": found.mean_memory,
        "seconds_over_memory": found.over,
        "picture": list(found.picture),
    }


def _pod(entry: PodResult, end: float) -> dict[str, Any]:
    return {
        "name": entry.request.name,
        "resource": entry.request.resource,
        "shares": entry.request.shares,
        "arrived": entry.request.at,
        "end": entry.end.value,
        "placed": entry.placed,
        "ended": entry.ended,
        "waited": waited(entry, end) if entry.end is not PodOutcome.FAILED else None,
        "node": entry.node,
        "gpus": {str(gpu): count for gpu, count in entry.gpus.items()},
        "waits": [wait.value for wait in entry.waits],
        "failures": [
            {"at": failure.at, "node": failure.node, "rule": failure.rule, "why": failure.reason}
            for failure in entry.failures
        ],
    }
