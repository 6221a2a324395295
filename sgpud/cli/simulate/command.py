"""The command: files in, a document out."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from sgpud.cli.simulate.asked import requests
from sgpud.cli.simulate.document import run_document
from sgpud.cli.simulate.engine.simulation import simulate
from sgpud.cli.simulate.engine.values import (
    Baseline,
    Cluster,
    PodOutcome,
    PodRequest,
    SimulatedDra,
    SimulationResult,
)
from sgpud.cli.simulate.nodes import nodes
from sgpud.cli.simulate.pods import load_pods
from sgpud.cli.simulate.trace import TraceOptions, load_trace
from sgpud.config.dra_settings import dra_settings
from sgpud.config.load import load, parse
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.values import Config, KubeletApi
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.sharing.limits import too_many
from sgpud.core.sharing.rules import LARGE_STATUS, Multiple, Placement, Sharing

DEFAULTS = "the defaults"
"""What stands for the name of a configuration where there is no file."""
TRIED = 20_000
"""Pods up to which another policy is tried, too."""


def run(arguments: argparse.Namespace, usual: str) -> dict[str, Any]:
    """Play the pods under each configuration. ConfigError for what any of the files has wrong.

    `usual` is the configuration's file where none is named; the defaults where it does not exist.
    """
    there = nodes(arguments.gpus, arguments.nodes, arguments.nodes_csv)
    file = arguments.trace or arguments.pods
    options = TraceOptions(arguments.columns, arguments.scale, arguments.start, arguments.to)
    listed = load_trace(Path(file), options) if arguments.trace else load_pods(Path(file))
    configurations = _configurations(arguments.config, usual, arguments.set)
    tries = arguments.tries
    played = [
        (name, _cluster(config, there, tries))
        for name, config in _by_api(configurations, arguments.api)
    ]
    first = Cluster(configurations[0][1].sharing, there, tries)
    played += [(name, evolve(first, baseline=Baseline(name))) for name in arguments.policy]
    gpus = list(dict.fromkeys(gpu for node in dict.fromkeys(there) for gpu in node))
    runs = []
    for name, cluster in played:
        _check_shares(name, cluster.sharing, gpus)
        pods = requests(listed, cluster)
        outcome = simulate(cluster, pods)
        run = run_document(outcome, verbose=arguments.verbose or not arguments.json)
        run["notes"] += listed.notes
        if cluster.baseline is None:
            run["notes"] += [*_better(outcome, pods), *_unguarded(cluster.sharing, gpus)]
        run["notes"] += _asks(outcome) if cluster.dra else []
        runs.append({"configuration": name, **run})
    return {
        "pods": file,
        "gpus": [*arguments.gpus, *filter(None, [arguments.nodes_csv])],
        "runs": runs,
    }


def _by_api(
    configurations: Iterable[tuple[str, Config]], apis: Sequence[str] | None
) -> Iterator[tuple[str, Config]]:
    """Each configuration, with each of these APIs where any is asked for."""
    for name, config in configurations:
        for api in apis or (config.kubelet.api.value,):
            other = evolve(config, kubelet=evolve(config.kubelet, api=KubeletApi(api)))
            yield (f"{name}, {api}" if apis else name), other


def _cluster(config: Config, nodes: tuple[tuple[Gpu, ...], ...], tries: int) -> Cluster:
    if config.kubelet.api is not KubeletApi.DRA:
        return Cluster(config.sharing, nodes, tries)
    sharing = config.sharing
    if sharing.multiple is not Multiple.SAME:
        # What `limits: n` means there, whatever is configured.
        sharing = evolve(sharing, multiple=Multiple.DISTINCT)
    dra = SimulatedDra(dra_settings(config), max(1.0, config.dra.reorder_every))
    return Cluster(sharing, nodes, tries, dra)


def _asks(outcome: SimulationResult) -> list[str]:
    """What pods with several shares have to be written as."""
    containers = [each for entry in outcome.entries for each in entry.request.containers]
    several = {each.resource for each in containers if each.shares > 1}
    claims = sorted(
        {one.resource for one in outcome.histories if one.multiple is Multiple.SAME} & several
    )
    return [
        f"several shares of {resource} are played as a claim for one GPU, since with DRA"
        " `limits: n` is n GPUs"
        for resource in claims
    ]


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
