"""The outcome of a simulation as a document, for JSON and for the text of `show_simulation`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sgpud.cli.simulate.engine.summary import refusals, sums, waited, waits
from sgpud.cli.simulate.engine.values import PodOutcome, PodResult, SimulationResult

PARTS = 60
"""Parts of the picture of each GPU over time."""


def run_document(outcome: SimulationResult, *, verbose: bool = True) -> dict[str, Any]:
    """What happened under one configuration. Times in seconds, memory in bytes.

    Each pod's failures are in it if `verbose`; otherwise their number only.
    """
    names = {history.gpu.uuid: f"GPU {history.position}" for history in outcome.histories}
    sharing, dra = outcome.cluster.sharing, outcome.cluster.dra
    settings: dict[str, Any] = {"api": "device-plugin", "placement": sharing.placement.value}
    if dra:
        memory = sharing.default.share_memory > 0
        order = dra.settings.memory_placement if memory else dra.settings.placement
        settings |= {"api": "dra", "placement": order.value if order else "fixed"}
        settings["reorder_every"] = dra.reorder_every
    else:
        settings["advertise"] = sharing.advertise.value
    return {
        "settings": settings,
        "nodes": outcome.cluster.nodes,
        "start": outcome.start,
        "end": outcome.end,
        "notes": list(outcome.notes),
        "summary": _summary(outcome),
        "gpus": [_gpu(outcome, number) for number in range(len(outcome.histories))],
        "pods": [_pod(entry, outcome.end, names, verbose=verbose) for entry in outcome.entries],
    }


def _summary(outcome: SimulationResult) -> dict[str, Any]:
    entries = outcome.entries
    ends = Counter(entry.end for entry in entries)
    # Given-up pods wait to the end: a policy that loses pods must not look quick.
    waiting = [waited(entry, outcome.end) for entry in entries]
    return {
        "requests": len(entries),
        **{end.value: ends[end] for end in PodOutcome},
        "failures": sum(len(entry.failures) for entry in entries),
        "pods_with_failures": sum(bool(entry.failures) for entry in entries),
        "failures_by_rule": refusals(outcome),
        "waited": sum(entry.waited for entry in entries),
        "fragmentation": sum(entry.split for entry in entries),
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
        "peak_declared": found.peak_declared,
        "mean_declared": found.mean_declared,
        "seconds_over_memory": found.over,
        "picture": list(found.picture),
    }


def _pod(
    entry: PodResult, end: float, names: Mapping[str, str], *, verbose: bool
) -> dict[str, Any]:
    failures: dict[str, Any] = {"failure_count": len(entry.failures)}
    if verbose:
        failures["failures"] = [
            {
                "at": failure.at,
                "node": failure.node,
                "rule": failure.rule,
                "why": _shortened(failure.reason, names),
            }
            for failure in entry.failures
        ]
    return {
        "name": entry.request.name,
        "resource": entry.request.resource,
        "shares": entry.request.shares,
        "arrived": entry.request.at,
        "end": entry.end.value,
        "placed": entry.placed,
        "ended": entry.ended,
        "waited": waited(entry, end),
        "node": entry.node,
        "gpus": {str(gpu): count for gpu, count in entry.gpus.items()},
        "waits": [wait.value for wait in entry.waits],
        **failures,
    }


def _shortened(reason: str, names: Mapping[str, str]) -> str:
    """The reason with the GPUs' positions on their node instead of their UUIDs."""
    for uuid, name in names.items():
        reason = reason.replace(uuid, name)
    return reason
