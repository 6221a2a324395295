"""The commands of `sgpud dra`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

from sgpud.cli.commands import Invocation
from sgpud.cli.dra.switch import DEVICE_PLUGIN, DRA, Switch, SwitchingError
from sgpud.config.load import load
from sgpud.core.dra.classes import device_class
from sgpud.core.text import several
from sgpud.kubelet.dra.records import claim_names
from sgpud.serve.control.client import AbsentError, ControlError

MOST_NAMED = 5
"""Claims that are named in a message."""


def print_classes(call: Invocation) -> int:
    """Print the DeviceClasses of a configuration, for kubectl."""
    config = load(call.config, call.arguments.set)
    classes = [device_class(name, config.dra.driver) for name in config.sharing.resources]
    # A List in JSON is what kubectl apply takes, as YAML: no writer of YAML is needed.
    document = {"apiVersion": "v1", "kind": "List", "items": classes}
    call.out.write(json.dumps(document, indent=2) + "\n")
    return 0


def switch(call: Invocation) -> int:
    """Switch to what the configuration says."""
    from sgpud.cli.dra.node_access import NodeAccess  # noqa: PLC0415 - TLS

    config = load(call.config, call.arguments.set)
    node = NodeAccess(config, call.environment)
    said = _printer(call)
    run = Switch(_Daemon(call.ask), node, time.monotonic, _wait, said, call.arguments.status_period)
    try:
        run.run(config.kubelet.api.value)
    except KeyboardInterrupt:
        return 1
    return 0


def remove_slices(call: Invocation) -> int:
    """Delete this node's slices, unless claims are held."""
    from sgpud.cli.dra.node_access import NodeAccess  # noqa: PLC0415 - TLS

    config = load(call.config, call.arguments.set)
    held = claim_names(Path(call.arguments.state_dir) / "claims")
    if held and not call.arguments.force:
        raise SwitchingError(
            f"pods hold {several(len(held), 'claim')} ({', '.join(held[:MOST_NAMED])}): without"
            " sgpud they stay Terminating. Drain the node first; --force removes the slices all"
            " the same"
        )
    said = _printer(call)
    for name in NodeAccess(config, call.environment).remove_slices():
        said(f"Removed ResourceSlice {name}")
    return 0


def _printer(call: Invocation) -> Callable[[str], None]:
    def say(text: str) -> None:
        call.out.write(text + "\n")
        call.out.flush()

    return say


def _wait(seconds: float) -> None:
    Event().wait(seconds)


class _Daemon:
    """The daemon, over its control socket."""

    def __init__(self, ask: Callable[..., dict[str, Any]]) -> None:
        self._ask = ask

    def step(self, word: str) -> Mapping[str, Any]:
        """Take a step."""
        return self._ask("switch", step=word)

    def serving(self) -> tuple[str, str]:
        """What a daemon serves that is there, and serves."""
        try:
            serves = str(self.step("look")["serves"])
            seen = self._ask("status")
        except AbsentError as error:
            return "", str(error)
        except ControlError as error:
            return "", str(error)
        if seen["serving"] != "serving":
            return "", str(seen["serving"])
        published = all(each["published"] for each in seen["dra"])
        if serves == DRA and not published:
            return "", "; ".join(each["problem"] for each in seen["dra"])
        return (serves, "") if serves in (DRA, DEVICE_PLUGIN) else ("", serves)
