"""The outcome of a simulation as a document, for JSON and for the text of `show_simulation`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sgpud.cli.simulate.engine.summary import refusals, sums, waited, waits
from sgpud.cli.simulate.engine.values import Cluster, PodOutcome, PodResult, SimulationResult

PARTS = 60
"""Parts of the picture of each GPU over time."""


def run_document(outcome: SimulationResult, *, verbose: bool = True) -> dict[str, Any]:
    """What happened under one configuration. Times in seconds, memory in bytes.

    Each pod's failures are in it if `verbose`; otherwise their number only.
    """
    names = {history.gpu.uuid: f"GPU {history.position}" for history in outcome.histories}
    return {
        "settings": _settings(outcome.cluster),
        "nodes": len(outcome.cluster.nodes),
        "start": outcome.start,
        "end": outcome.end,
        "notes": list(outcome.notes),
        "summary": _summary(outcome),
        "gpus": [_gpu(outcome, number) for number in range(len(outcome.histories))],
        "pods": [_pod(entry, outcome.end, names, verbose=verbose) for entry in outcome.entries],
    }


def _settings(cluster: Cluster) -> dict[str, Any]:
    """What placed the pods."""
    sharing, dra = cluster.sharing, cluster.dra
    if cluster.baseline:
        return {"api": "none", "placement": cluster.baseline.value}
    if dra:
        memory = sharing.default.share_memory > 0
        order = dra.settings.memory_placement if memory else dra.settings.placement
        placement = order.value if order else "fixed"
        return {"api": "dra", "placement": placement, "reorder_every": dra.reorder_every}
    placement, advertise = sharing.placement.value, sharing.advertise.value
    return {"api": "device-plugin", "placement": placement, "advertise": advertise}


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
    given_to = entry.given or ({},) * len(entry.request.containers)
    return {
        "name": entry.request.name,
        "shares": sum(shares for _, shares in entry.request.wants),
        "arrived": entry.request.at,
        "end": entry.end.value,
        "placed": entry.placed,
        "ended": entry.ended,
        "waited": waited(entry, end),
        "node": entry.node,
        "gpus": {str(gpu): count for gpu, count in entry.gpus.items()},
        "containers": [
            {
                "resource": container.resource,
                "shares": container.shares,
                "gpus": {str(gpu): count for gpu, count in given.items()},
            }
            for container, given in zip(entry.request.containers, given_to, strict=True)
        ],
        "waits": [wait.value for wait in entry.waits],
        **failures,
    }


def _shortened(reason: str, names: Mapping[str, str]) -> str:
    """The reason with the GPUs' positions on their node instead of their UUIDs."""
    for uuid, name in names.items():
        reason = reason.replace(uuid, name)
    return reason
