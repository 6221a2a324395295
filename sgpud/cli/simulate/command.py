"""The command: files in, a document out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgpud.cli.simulate.asked import requests
from sgpud.cli.simulate.document import run_document
from sgpud.cli.simulate.engine.simulation import empty_plan, simulate
from sgpud.cli.simulate.engine.values import Cluster
from sgpud.cli.simulate.pods import load_pods
from sgpud.cli.simulate.trace import load_trace
from sgpud.config.load import load, parse
from sgpud.config.values import Config
from sgpud.gpus.fake.file import load as load_gpus

DEFAULTS = "the defaults"
"""What stands for the name of a configuration where there is no file."""


def run(arguments: argparse.Namespace, usual: str) -> dict[str, Any]:
    """Play the pods under each configuration. ConfigError for what any of the files has wrong.

    `usual` is the configuration's file where none is named; the defaults where it does not exist.
    """
    gpus = load_gpus(Path(arguments.gpus)).gpus
    file = arguments.trace or arguments.pods
    listed = load_trace(Path(file)) if arguments.trace else load_pods(Path(file))
    runs = []
    for name, config in _configurations(arguments.config, usual, arguments.set):
        sharing = config.sharing
        cluster = Cluster(sharing, gpus, arguments.nodes, arguments.tries)
        pods = requests(listed, empty_plan(cluster), sharing.default.resource)
        outcome = simulate(cluster, pods)
        runs.append({"configuration": name, **run_document(outcome)})
    return {"pods": file, "gpus": arguments.gpus, "runs": runs}


def _configurations(
    files: Sequence[str], usual: str, sets: Sequence[str]
) -> list[tuple[str, Config]]:
    if not files and not Path(usual).exists():
        return [(DEFAULTS, parse("", DEFAULTS, sets))]
    return [(file, load(file, sets)) for file in files or (usual,)]
