"""The whole of sgpud.toml as data: every key once, with its kind, default, unit and meaning.

Validation, etc/sgpud.toml and docs/configuration.md are all made from this.
"""

from __future__ import annotations

from sgpud.config.schema.health import HEALTH
from sgpud.config.schema.kinds import Key, ListOf, Table
from sgpud.config.schema.node import CONTAINER, HTTP, KUBELET, LOG
from sgpud.config.schema.sharing import GPUS, RULE, SHARING


def _section(name: str, keys: tuple[Key, ...], doc: str) -> Key:
    """A table that stands once in the file."""
    return Key(name, Table(keys, f"its keys below a line [{name}]"), {}, doc)


ROOT = Table(
    (
        _section("gpus", GPUS, "Which of the node's GPUs are shared."),
        _section("sharing", SHARING, "How each GPU is shared, where no [[gpu]] rule differs."),
        Key(
            "gpu",
            ListOf(
                Table(RULE, "its keys below a line [[gpu]]"),
                "each rule below a line [[gpu]], with two brackets",
                256,
                repeats=True,
            ),
            [],
            "Rules for some of the GPUs, as many as wanted, each below a line [[gpu]] of its own."
            " For each GPU the first rule that matches it counts, and what that rule leaves out"
            " is as in [sharing].",
        ),
        _section("container", CONTAINER, "How containers are given their GPUs."),
        _section("health", HEALTH, "What makes a GPU sick, and how it comes back."),
        _section("kubelet", KUBELET, "Where the kubelet is, and what it is told."),
        _section("http", HTTP, "What can be read over HTTP."),
        _section("log", LOG, "What sgpud writes about itself."),
    ),
    "a table",
)
"""The whole file: its keys are the sections."""


def header(section: Key) -> str:
    """The line that opens a section."""
    return f"[[{section.name}]]" if isinstance(section.kind, ListOf) else f"[{section.name}]"
