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

from sgpud.core.causes import Policy
from sgpud.operate import show
from sgpud.operate.client import CONTROL, AbsentError, ask

CONFIG = "/etc/sgpud.toml"
EX_CONFIG = 78
"""Exit status of a bad configuration (sysexits)."""


@frozen
class Call:
    """One call of a command: its arguments and where it runs."""

    arguments: argparse.Namespace
    environment: Mapping[str, str]
    out: TextIO

    def say(self, document: object, text: Callable[[Any], str]) -> None:
        """Print a document, as JSON where that was asked for."""
        if self.arguments.json:
            self.out.write(json.dumps(document, indent=2, default=str) + "\n")
        else:
            self.out.write(text(show.clean(document)) + "\n")
        self.out.flush()

    def ask(self, verb: str, **arguments: str) -> dict[str, Any]:
        """Ask the running daemon."""
        return ask(Path(self.arguments.run_dir) / CONTROL, verb, arguments)


def run(call: Call) -> int:
    """Run the daemon."""
    # What is imported stays: the collector, on again in service, would look through it many times.
    gc.disable()
    from sgpud import service  # noqa: PLC0415 - Twisted and gRPC

    return service.run(call.arguments, call.environment)


def check_config(call: Call) -> int:
    """Say what is wrong with a configuration file."""
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
    call.say(found, show.checked)
    return EX_CONFIG if errors else 0


def gpus(call: Call) -> int:
    """List the GPUs of this node."""
    from sgpud import offline  # noqa: PLC0415 - Twisted

    found = offline.gpus(call.arguments)
    call.say(found, show.gpus)
    return 1 if found["fault"] else 0


def plan(call: Call) -> int:
    """Show the plan."""
    call.say(_planned(call), show.plan)
    return 0


def _planned(call: Call) -> dict[str, Any]:
    """The plan of the running daemon; of this node as it would be, where none runs."""
    if not call.arguments.simulate:
        try:
            return call.ask("plan")
        except AbsentError:
            pass
    from sgpud import offline  # noqa: PLC0415 - Twisted

    return offline.plan(call.arguments)


def explain(call: Call) -> int:
    """Say why a pod, a share or a GPU is as it is."""
    from sgpud.operate import show_explain  # noqa: PLC0415 - the others do not need it

    call.say(call.ask("explain", about=call.arguments.about), show_explain.explained)
    return 0


def doctor(call: Call) -> int:
    """Check the node."""
    from sgpud.doctor import command  # noqa: PLC0415 - Twisted
    from sgpud.operate import show_doctor  # noqa: PLC0415 - the others do not need it

    found = command.examine(call.arguments, lambda: call.ask("status"))
    call.say(found, show_doctor.examined)
    return int(found["status"])


def status(call: Call) -> int:
    """Show how the node does."""
    from sgpud.operate import show_status  # noqa: PLC0415 - the others do not need it
    from sgpud.operate.status_client import read_status  # noqa: PLC0415

    found = read_status(Path(call.arguments.run_dir))
    style = show_status.Style(_columns(call), colour=_colours(call))
    call.say(found, lambda found: "\n".join(show_status.status(found, style)))
    return 0


def top(call: Call) -> int:
    """Show it again and again on a terminal; once where there is none."""
    from sgpud.operate import show_status  # noqa: PLC0415 - the others do not need it
    from sgpud.operate.status_client import read_status  # noqa: PLC0415
    from sgpud.operate.top import Top  # noqa: PLC0415

    run = Path(call.arguments.run_dir)
    found = show.clean(read_status(run))
    if call.out.isatty() and sys.stdin.isatty():
        keys = sys.stdin.fileno()
        shown = Top(
            lambda: show.clean(read_status(run)),
            call.out,
            keys,
            lambda: os.get_terminal_size(call.out.fileno()),
            colour=_colours(call),
        )
        shown.run(call.arguments.every)
    else:
        style = show_status.Style(_columns(call), by_memory=True)
        call.out.write("\n".join(show_status.status(found, style)) + "\n")
        call.out.flush()
    return 0


def _columns(call: Call) -> int:
    """Of the terminal; 0 where the output goes elsewhere."""
    return os.get_terminal_size(call.out.fileno()).columns if call.out.isatty() else 0


def _colours(call: Call) -> bool:
    """Whether colours may be: on a terminal that has them, unless NO_COLOR says otherwise."""
    dumb = call.environment.get("TERM", "dumb") == "dumb"
    return call.out.isatty() and not dumb and not call.environment.get("NO_COLOR")


def reload(call: Call) -> int:
    """Have the configuration read again."""
    outcome = call.ask("reload")
    call.say(outcome, show.reloaded)
    return EX_CONFIG if outcome["problems"] else 0


def release(call: Call) -> int:
    """Have the driver let go of."""
    found = call.ask("release")
    call.say(found, show.released)
    return 0 if found["released"] else 1


def acquire(call: Call) -> int:
    """Have the GPUs read again."""
    call.say(call.ask("acquire"), lambda _: "The GPUs are read again.")
    return 0


def about(verb: str, text: str) -> Callable[[Call], int]:
    """A command that tells the daemon something about a GPU."""

    def command(call: Call) -> int:
        found = call.ask(verb, gpu=call.arguments.gpu)
        call.say(found, lambda found: "\n".join(text.format(gpu=gpu) for gpu in found["gpus"]))
        return 0

    return command


def xids(call: Call) -> int:
    """List what each XID means here."""
    from sgpud.config.load import load  # noqa: PLC0415 - the others do not need it
    from sgpud.operate import xids  # noqa: PLC0415

    arguments = call.arguments
    file = arguments.config or (CONFIG if Path(CONFIG).exists() else None)
    policy = load(file, arguments.set).health if file else Policy()
    call.say(xids.document(policy), show.xids)
    return 0


def simulate(call: Call) -> int:
    """Play a list of pods on simulated nodes."""
    from sgpud.operate import show_simulation  # noqa: PLC0415 - the others do not need it
    from sgpud.simulate import command  # noqa: PLC0415

    call.say(command.run(call.arguments, CONFIG), show_simulation.simulated)
    return 0


def convert(call: Call) -> int:
    """Convert another plugin's configuration."""
    from sgpud.convert import command  # noqa: PLC0415 - the others do not need it

    found = command.run(call.arguments.file, call.arguments.entry)
    if call.arguments.json:
        call.say(found, str)
    else:
        call.out.write(found["toml"])  # a document, not a message: its lines are as they are
    return 0
