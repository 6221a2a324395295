"""The nodes of a simulation: from files of fake GPUs, and from a CSV table.

The table's first row names its columns: `product` (or `model`), `gpus` (or `gpu`, `count`) and
`memory`, a size; `name` (or `sn`, `node`) where a node has GPUs of several products, a row for
each. Other columns are ignored, rows without GPUs skipped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from sgpud.config.problems import ConfigError, Problem
from sgpud.config.source import file_text
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.text import several
from sgpud.core.units import SizeError, parse_size
from sgpud.gpus.fake.file import fake_gpus, load

MOST_NODES = 10_000
MOST_GPUS = 64
"""Of one node."""
ALIASES = {
    "model": "product",
    "gpu": "gpus",
    "count": "gpus",
    "sn": "name",
    "node": "name",
    "gpu_memory": "memory",
}
MOST_PROBLEMS = 20
"""Problems that are reported at once."""
_NEEDED = ("product", "gpus", "memory")


def nodes(
    files: Sequence[str], counts: Sequence[int], table: str | None
) -> tuple[tuple[Gpu, ...], ...]:
    """The GPUs of each node; ConfigError with every problem of a file.

    `counts`: how many nodes each of the files stands for, or one number for all of them.
    """
    if not files and table is None:
        raise ConfigError([Problem("--gpus", 0, "", "is missing: name the nodes, or --nodes-csv")])
    numbers = list(counts) if len(counts) > 1 else [*counts, 1][:1] * len(files)
    if len(numbers) != len(files):
        text = (
            f"is given {len(numbers)} times for {several(len(files), '--gpus')}: give it once,"
            " or once for each"
        )
        raise ConfigError([Problem("--nodes", 0, "", text)])
    found: list[tuple[Gpu, ...]] = []
    for file, count in zip(files, numbers, strict=True):
        found += [load(Path(file)).gpus] * count
    if table is not None:
        found += parse_nodes(file_text(Path(table)), table)
    if len(found) > MOST_NODES:
        raise ConfigError([Problem("--nodes", 0, "", f"more than {MOST_NODES} nodes")])
    return tuple(found)


def parse_nodes(text: bytes, file: str) -> list[tuple[Gpu, ...]]:
    """The nodes of a table; ConfigError with every line that is wrong."""
    reader = csv.DictReader(io.StringIO(text.decode("utf-8-sig", "replace"), newline=""))
    names = [ALIASES.get(name.strip(), name.strip()) for name in reader.fieldnames or ()]
    reader.fieldnames = names
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        said = f"the column {missing[0]} is missing; required: {', '.join(_NEEDED)}"
        raise ConfigError([Problem(file, 1, "", said)])
    parts: dict[str, list[tuple[str, int, str]]] = {}
    problems = []
    try:
        for row in reader:
            try:
                part = _part({name: (row.get(name) or "").strip() for name in (*_NEEDED, "name")})
            except ValueError as error:
                problems.append(Problem(file, reader.line_num, "", str(error)))
                continue
            name = (row.get("name") or "").strip() or f"line {reader.line_num}"
            if part[1]:
                parts.setdefault(name, []).append(part)
                if sum(count for _, count, _ in parts[name]) > MOST_GPUS:
                    text_of = f"node {name} has more than {MOST_GPUS} GPUs"
                    problems.append(Problem(file, reader.line_num, "gpus", text_of))
    except csv.Error as error:
        problems.append(Problem(file, reader.line_num, "", f"is not CSV: {error}"))
    if not parts and not problems:
        problems.append(Problem(file, 0, "", "has no node with a GPU"))
    if problems:
        raise ConfigError(problems[:MOST_PROBLEMS])
    alike = {tuple(node): fake_gpus(node) for node in parts.values()}
    return [alike[tuple(node)] for node in parts.values()]


def _part(row: Mapping[str, str]) -> tuple[str, int, str]:
    """(product, GPUs, memory of each) of a row; ValueError with what is wrong."""
    gpus = row["gpus"] or "0"
    if not (gpus.isascii() and gpus.isdigit()):
        raise ValueError(f'gpus: "{gpus}" is not a whole number')
    if gpus == "0":
        return "", 0, ""
    if not row["product"] or not row["product"].isprintable():
        raise ValueError("product: is missing or not a name")
    try:
        memory = parse_size(row["memory"])
    except SizeError as error:
        raise ValueError(f'memory: "{row["memory"]}" is not a size: {error.reason}') from error
    if not memory:
        raise ValueError("memory: must be more than 0")
    return row["product"], int(gpus[:9]), row["memory"]
