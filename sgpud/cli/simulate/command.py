"""The command: files in, a document out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from sgpud.cli.simulate.asked import requests
from sgpud.cli.simulate.document import run_document
from sgpud.cli.simulate.engine.simulation import empty_plan, simulate
from sgpud.cli.simulate.engine.values import Cluster, PodOutcome, PodRequest, SimulationResult
from sgpud.cli.simulate.pods import load_pods
from sgpud.cli.simulate.trace import TraceOptions, load_trace
from sgpud.config.load import load, parse
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.values import Config
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.sharing.limits import too_many
from sgpud.core.sharing.rules import LARGE_STATUS, Placement, Sharing
from sgpud.gpus.fake.file import load as load_gpus

DEFAULTS = "the defaults"
"""What stands for the name of a configuration where there is no file."""
TRIED = 20_000
"""Pods up to which another policy is tried, too."""


def run(arguments: argparse.Namespace, usual: str) -> dict[str, Any]:
    """Play the pods under each configuration. ConfigError for what any of the files has wrong.

    `usual` is the configuration's file where none is named; the defaults where it does not exist.
    """
    gpus = load_gpus(Path(arguments.gpus)).gpus
    file = arguments.trace or arguments.pods
    options = TraceOptions(arguments.columns, arguments.scale, arguments.start, arguments.to)
    listed = load_trace(Path(file), options) if arguments.trace else load_pods(Path(file))
    runs = []
    for name, config in _configurations(arguments.config, usual, arguments.set):
        sharing = config.sharing
        _check_shares(name, sharing, gpus)
        cluster = Cluster(sharing, gpus, arguments.nodes, arguments.tries)
        pods = requests(listed, empty_plan(cluster), sharing.default.resource)
        outcome = simulate(cluster, pods)
        run = run_document(outcome, verbose=arguments.verbose or not arguments.json)
        run["notes"] += [*listed.notes, *_better(outcome, pods), *_unguarded(sharing, gpus)]
        runs.append({"configuration": name, **run})
    return {"pods": file, "gpus": arguments.gpus, "runs": runs}


def _unguarded(sharing: Sharing, gpus: Sequence[Gpu]) -> list[str]:
    return [
        f"nothing limits how much GPU memory the pods of {resource} use together: set share_memory"
        " or full_guard"
        for resource in sharing.unguarded(gpus)
    ]


def _check_shares(name: str, sharing: Sharing, gpus: Sequence[Gpu]) -> None:
    """ConfigError where GPUs would have more memory shares than are allowed, with the sum."""
    for gpu in gpus:
        terms = sharing.terms(gpu)
        partition = sharing.partition(gpu, terms) if terms else None
        if partition and partition.asked and not partition.shares:
            text = too_many(gpu, partition, sharing.reserve_memory)
            limit = f"{text}, more than {LARGE_STATUS}: raise it, or set allow_large_status = true"
            raise ConfigError([Problem(name, 0, "sharing.share_memory", limit)])


def _better(outcome: SimulationResult, pods: Sequence[PodRequest]) -> list[str]:
    """Whether `packed` would lose fewer pods, where spreading has lost some."""
    sharing = outcome.cluster.sharing
    lost = sum(entry.end is PodOutcome.FAILED for entry in outcome.entries)
    if not lost or sharing.placement is not Placement.SPREAD or len(pods) > TRIED:
        return []
    packed = evolve(outcome.cluster, sharing=evolve(sharing, placement=Placement.PACKED))
    other = simulate(packed, pods)
    left = sum(entry.end is PodOutcome.FAILED for entry in other.entries)
    if left >= lost:
        return []
    return [f'placement = "packed" would give up {left} instead of {lost} of these pods']


def _configurations(
    files: Sequence[str], usual: str, sets: Sequence[str]
) -> list[tuple[str, Config]]:
    if not files and not Path(usual).exists():
        return [(DEFAULTS, parse("", DEFAULTS, sets))]
    return [(file, load(file, sets)) for file in files or (usual,)]
