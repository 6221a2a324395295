"""The arguments of `sgpud simulate`."""

from __future__ import annotations

import argparse

from sgpud.cli.simulate.engine.values import TRIES

MOST = 1000
"""Nodes, and tries, of a simulation."""


def add_arguments(parser: argparse.ArgumentParser, usual: str) -> None:
    """Add them; `usual` is the configuration's file where none is named."""
    listed = parser.add_mutually_exclusive_group(required=True)
    listed.add_argument("pods", nargs="?", metavar="PODS.toml", help="pods, as [[pod]] tables")
    listed.add_argument("--trace", metavar="CSV", help="pods, as a CSV table")
    text = "fake GPUs of a node, as for run --fake-gpus"
    parser.add_argument("--gpus", required=True, metavar="FILE", help=text)
    parser.add_argument(
        "--nodes", type=_several, default=1, metavar="N", help="number of such nodes (1)"
    )
    text = f"attempts per pod that fails on its node, at most ({TRIES})"
    parser.add_argument("--tries", type=_several, default=TRIES, metavar="N", help=text)
    text = f"configuration file; repeat to compare several ({usual} if it exists, else defaults)"
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help=text)


def _several(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST}")
