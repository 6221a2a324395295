"""The arguments of `sgpud simulate`.

Every command has them in its parser, `sgpud run` at a boot too, which is in a hurry: what reads
their values is imported when there is one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

from sgpud.cli.simulate.engine import TRIES

MOST = 1000
"""Nodes of a kind, and tries, of a simulation."""
POLICIES = ("best-fit", "first-fit", "random")


def add_arguments(parser: argparse.ArgumentParser, usual: str) -> None:
    """Add them; `usual` is the configuration's file where none is named."""
    listed = parser.add_mutually_exclusive_group(required=True)
    listed.add_argument("pods", nargs="?", metavar="PODS.toml", help="pods, as [[pod]] tables")
    listed.add_argument("--trace", metavar="CSV", help="pods, as a CSV table")
    text = "fake GPUs of a node, as for run --fake-gpus; repeat for nodes that differ"
    parser.add_argument("--gpus", action="append", default=[], metavar="FILE", help=text)
    text = "number of such nodes (1), once or for each --gpus"
    parser.add_argument(
        "--nodes", action="append", type=_several, default=[], metavar="N", help=text
    )
    text = "nodes, as a CSV table with the columns product, gpus, memory and, optionally, name"
    parser.add_argument("--nodes-csv", metavar="CSV", help=text)
    text = "play the pods with a scheduler that sees every GPU, too: " + ", ".join(POLICIES)
    parser.add_argument(
        "--policy", action="append", default=[], choices=POLICIES, metavar="NAME", help=text
    )
    text = f"attempts per pod that fails on its node, at most ({TRIES})"
    parser.add_argument("--tries", type=_several, default=TRIES, metavar="N", help=text)
    text = f"configuration file; repeat to compare several ({usual} if it exists, else defaults)"
    columns = "--trace: other names of its columns, e.g. name=id,arrive=creation_time"
    parser.add_argument("--columns", type=column_map, default={}, metavar="A=B,…", help=columns)
    scale = "--trace: divide its times, shares or memory, e.g. times=1000,shares=10"
    parser.add_argument("--scale", type=scale_map, default={}, metavar="A=N,…", help=scale)
    window = "--trace: play arrivals from this time on, in seconds or e.g. 2h from the first"
    parser.add_argument("--from", type=_time, default=0.0, metavar="T", help=window, dest="start")
    parser.add_argument(
        "--to",
        type=_time,
        default=math.inf,
        metavar="T",
        help="--trace: play arrivals before this time",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="with --json, also print the failures of every pod"
    )
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help=text)
    text = "play the nodes with this [kubelet] api; repeat to compare both"
    parser.add_argument("--api", action="append", choices=("device-plugin", "dra"), help=text)


def column_map(text: str) -> Mapping[str, str]:
    """Other names of a trace's columns; ValueError where that is none."""
    from sgpud.cli.simulate import trace  # noqa: PLC0415 - as above

    return trace.column_map(text)


def scale_map(text: str) -> Mapping[str, float]:
    """What a trace's columns are divided by; ValueError where that is none."""
    from sgpud.cli.simulate import trace  # noqa: PLC0415 - as above

    return trace.scale_map(text)


def _time(text: str) -> float:
    from sgpud.cli.simulate.asked import TimeError, seconds  # noqa: PLC0415 - as above

    try:
        return seconds(text)
    except TimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def _several(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST}")
