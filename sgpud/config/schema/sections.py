"""The whole of sgpud.toml as data: every key once, with its kind, default, unit and meaning.

Validation, etc/sgpud.toml and docs/configuration.md are all made from this.
"""

from __future__ import annotations

from sgpud.config.schema.dra import DRA
from sgpud.config.schema.health import HEALTH
from sgpud.config.schema.kinds import Key, ListOf, Table
from sgpud.config.schema.limits import LIMITS
from sgpud.config.schema.node import CONTAINER, HTTP, KUBELET, LOG
from sgpud.config.schema.sharing import GPUS, RULE, SHARING


def _section(name: str, keys: tuple[Key, ...], doc: str) -> Key:
    """A table that occurs once in the file."""
    return Key(name, Table(keys, f"keys of table [{name}]"), {}, doc)


ROOT = Table(
    (
        _section("gpus", GPUS, "Which of the node's GPUs are shared."),
        _section("sharing", SHARING, "How each GPU is shared, unless a [[gpu]] rule differs."),
        Key(
            "gpu",
            ListOf(
                Table(RULE, "keys of a table [[gpu]]"),
                "[[gpu]] tables, with two brackets",
                256,
                repeats=True,
            ),
            [],
            "Rules for some of the GPUs, any number, each in a [[gpu]] table. For each GPU the"
            " first rule that matches it applies; keys that it does not set are as in [sharing].",
        ),
        _section("container", CONTAINER, "How GPUs are injected into containers."),
        _section("limits", LIMITS, "How the GPU memory of containers is limited and watched."),
        _section("health", HEALTH, "What makes a GPU unhealthy, and how it recovers."),
        _section("kubelet", KUBELET, "Where the kubelet is, and what is reported to it."),
        _section("dra", DRA, 'Dynamic Resource Allocation, if [kubelet] api is "dra".'),
        _section("http", HTTP, "What is served over HTTP."),
        _section("log", LOG, "What sgpud logs, and how."),
    ),
    "a table",
)
"""The whole file: its keys are the sections."""


def header(section: Key) -> str:
    """The header line of a section."""
    return f"[[{section.name}]]" if isinstance(section.kind, ListOf) else f"[{section.name}]"
