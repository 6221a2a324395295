"""What each command does. Twisted and gRPC are imported by those that need them only."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from attrs import frozen

from sgpud.cli.screens import output
from sgpud.core.health.causes import HealthPolicy
from sgpud.serve.control.client import CONTROL, AbsentError, ask

CONFIG = "/etc/sgpud.toml"
EX_CONFIG = 78
"""Exit status of an invalid configuration (sysexits)."""


@frozen
class Invocation:
    """One call of a command: its arguments and where it runs."""

    arguments: argparse.Namespace
    environment: Mapping[str, str]
    out: TextIO

    def print(self, document: object, text: Callable[[Any], str]) -> None:
        """Print a document, as JSON with --json."""
        if self.arguments.json:
            self.out.write(json.dumps(document, indent=2, default=str) + "\n")
        else:
            self.out.write(text(output.clean(document)) + "\n")
        self.out.flush()

    @property
    def config(self) -> str:
        """The configuration file."""
        return self.arguments.config or CONFIG

    def ask(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Ask the running daemon."""
        return ask(Path(self.arguments.run_dir) / CONTROL, verb, arguments)


def run(call: Invocation) -> int:
    """Run the daemon."""
    # Imported modules stay: the collector, enabled again in service, would scan them many times.
    gc.disable()
    from sgpud.gpus.nvml.spawn import spawn_early  # noqa: PLC0415 - the others do not need it
    from sgpud.imports import without_unused  # noqa: PLC0415

    # The process that reads the GPUs starts while this one imports.
    probe = None if call.arguments.fake_gpus else spawn_early()
    try:
        with without_unused():
            from sgpud import service  # noqa: PLC0415 - Twisted and gRPC

        return service.run(call.arguments, call.config, call.environment, probe)
    finally:
        if probe is not None:
            probe.kill()


def limits_helper(call: Invocation) -> int:
    """Run the helper that sets memory limits, in this process's place."""
    from sgpud.limits.spawn import become_helper  # noqa: PLC0415 - the others do not need it

    arguments = call.arguments
    become_helper(arguments.run_dir, arguments.state_dir, arguments.cgroup_root)


def check_config(call: Invocation) -> int:
    """Check a configuration file."""
    from sgpud.config.load import load  # noqa: PLC0415 - the others do not need it
    from sgpud.config.problems import ConfigError  # noqa: PLC0415

    file = call.arguments.file
    try:
        problems = load(file, call.arguments.set).warnings
    except ConfigError as error:
        problems = error.problems
    errors = [str(problem) for problem in problems if not problem.warning]
    warnings = [str(problem) for problem in problems if problem.warning]
    found = {"file": file, "good": not errors, "errors": errors, "warnings": warnings}
    call.print(found, output.checked)
    return EX_CONFIG if errors else 0


def dra(call: Invocation) -> int:
    """Do something about Dynamic Resource Allocation."""
    from sgpud.cli.dra import commands as found  # noqa: PLC0415 - the others do not need it

    words = {
        "class": found.print_classes,
        "switch": found.switch,
        "remove-slices": found.remove_slices,
    }
    return words[call.arguments.what](call)


def gpus(call: Invocation) -> int:
    """List the GPUs of this node."""
    from sgpud.cli import offline  # noqa: PLC0415 - Twisted

    found = offline.gpus(call.arguments, call.config)
    call.print(found, output.gpus)
    return 1 if found["fault"] else 0


def plan(call: Invocation) -> int:
    """Show the plan, and what a reload would change; with `--config` or `--set`, loading that."""
    found = _planned(call)
    call.print(found, output.plan)
    asked = call.arguments.config or call.arguments.set
    return EX_CONFIG if asked and found["reload"] and found["reload"]["problems"] else 0


def _planned(call: Invocation) -> dict[str, Any]:
    """The plan of the running daemon; without one, what it would be on this node."""
    if not call.arguments.fake_gpus:
        asked: dict[str, object] = {"set": call.arguments.set}
        if call.arguments.config:
            asked |= {"file": call.arguments.config, "text": _content(call.arguments.config)}
        try:
            return call.ask("plan", **asked)
        except AbsentError:
            pass
    from sgpud.cli import offline  # noqa: PLC0415 - Twisted

    return offline.plan(call.arguments, call.config)


def _content(file: str) -> str:
    """The text of a configuration file, which the daemon may not be able to read; ConfigError."""
    from sgpud.config.load import read_file  # noqa: PLC0415 - the others do not need it

    return read_file(file).decode(errors="surrogateescape")


def explain(call: Invocation) -> int:
    """Explain a pod, a share or a GPU."""
    from sgpud.cli.screens import explain  # noqa: PLC0415 - the others do not need it

    call.print(call.ask("explain", about=call.arguments.about), explain.explained)
    return 0


def doctor(call: Invocation) -> int:
    """Check the node."""
    from sgpud.cli.doctor import command  # noqa: PLC0415 - Twisted
    from sgpud.cli.screens import doctor  # noqa: PLC0415 - the others do not need it

    found = command.examine(call.arguments, call.config, lambda: call.ask("status"))
    call.print(found, doctor.examined)
    return int(found["status"])


def status(call: Invocation) -> int:
    """Show the node."""
    from sgpud.cli.screens import status  # noqa: PLC0415 - the others do not need it
    from sgpud.serve.control.client import read_status  # noqa: PLC0415

    found = read_status(Path(call.arguments.run_dir))
    if call.arguments.names:
        from sgpud.cli.screens import names  # noqa: PLC0415 - the others do not need it

        call.print(names.KINDS[call.arguments.names](found), "\n".join)
        return 0
    style = status.StatusStyle(_columns(call), colour=_colours(call))
    call.print(found, lambda found: "\n".join(status.status(found, style)))
    return 0


def top(call: Invocation) -> int:
    """Show it live on a terminal, or once if the output is not a terminal."""
    from sgpud.cli.screens import status  # noqa: PLC0415 - the others do not need it
    from sgpud.cli.screens.top import Top  # noqa: PLC0415
    from sgpud.serve.control.client import read_status  # noqa: PLC0415

    run = Path(call.arguments.run_dir)
    found = output.clean(read_status(run))
    if call.out.isatty() and sys.stdin.isatty():
        keys = sys.stdin.fileno()
        shown = Top(
            lambda: output.clean(read_status(run)),
            call.out,
            keys,
            lambda: os.get_terminal_size(call.out.fileno()),
            colour=_colours(call),
        )
        shown.run(call.arguments.every)
    else:
        style = status.StatusStyle(_columns(call), order=status.Order.MEMORY)
        call.out.write("\n".join(status.status(found, style)) + "\n")
        call.out.flush()
    return 0


def _columns(call: Invocation) -> int:
    """Of the terminal; 0 if the output is not a terminal."""
    return os.get_terminal_size(call.out.fileno()).columns if call.out.isatty() else 0


def _colours(call: Invocation) -> bool:
    """Whether to use colours: on a terminal that has them, unless NO_COLOR is set."""
    dumb = call.environment.get("TERM", "dumb") == "dumb"
    return call.out.isatty() and not dumb and not call.environment.get("NO_COLOR")


def reload(call: Invocation) -> int:
    """Reload the daemon's configuration."""
    outcome = call.ask("reload")
    call.print(outcome, output.reloaded)
    return EX_CONFIG if outcome["problems"] else 0


def release(call: Invocation) -> int:
    """Release the driver."""
    found = call.ask("release")
    call.print(found, output.released)
    return 0 if found["released"] else 1


def acquire(call: Invocation) -> int:
    """Read the GPUs again."""
    call.print(call.ask("acquire"), lambda _: "Reading the GPUs again.")
    return 0


def about(verb: str, text: str) -> Callable[[Invocation], int]:
    """A command about one GPU."""

    def command(call: Invocation) -> int:
        found = call.ask(verb, gpu=call.arguments.gpu)
        call.print(found, lambda found: output.applied(found, text))
        return 0

    return command


def xids(call: Invocation) -> int:
    """List what each XID means here."""
    from sgpud.cli import xids  # noqa: PLC0415
    from sgpud.config.load import load  # noqa: PLC0415 - the others do not need it

    file = call.arguments.config or (CONFIG if Path(CONFIG).exists() else None)
    policy = load(file, call.arguments.set).health if file else HealthPolicy()
    call.print(xids.document(policy), output.xids)
    return 0


def simulate(call: Invocation) -> int:
    """Simulate a list of pods."""
    from sgpud.cli.screens import simulation  # noqa: PLC0415 - the others do not need it
    from sgpud.cli.simulate import command  # noqa: PLC0415

    call.print(command.run(call.arguments, CONFIG), simulation.simulated)
    return 0


def convert(call: Invocation) -> int:
    """Convert another plugin's configuration."""
    from sgpud.cli.convert import command  # noqa: PLC0415 - the others do not need it

    found = command.run(call.arguments.file, call.arguments.entry)
    if call.arguments.json:
        call.print(found, str)
    else:
        call.out.write(found["toml"])  # a document: its lines stay as they are
    return 0
