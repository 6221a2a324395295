"""The command `sgpud`. Twisted and gRPC are imported only by the commands that need them."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TextIO

from sgpud import __version__
from sgpud.cli import commands
from sgpud.cli.commands import CONFIG, Invocation
from sgpud.cli.screens import names, output
from sgpud.cli.simulate.arguments import add_arguments
from sgpud.core.errors import SgpudError
from sgpud.core.text import one_line

STATE = "/var/lib/sgpud"
RUN = "/run/sgpud"
CGROUP = "/sys/fs/cgroup"

_EPILOG = """\
Getting started:
  sgpud gpus               list the GPUs
  sgpud check-config       check /etc/sgpud.toml
  sgpud plan               show what is or would be advertised, and what a reload would change
  sgpud doctor             check the node
  systemctl start sgpud    share the GPUs
  sgpud status             show who holds and uses them, and what is wrong
  sgpud reload             apply the edited file; the kubelet keeps its streams

Exit status: 0 success; 1 failure, see standard error; 2 wrong arguments; 3 doctor found a warning,
4 an error; 75 restart sgpud (another sgpud serves the node and --no-wait is set, or a mount is
stale); 78 invalid configuration.
"""


def main(
    argv: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Run one command; its exit status."""
    out, err = out or _stdout(), err or sys.stderr
    call = Invocation(command_line().parse_args(argv), environment, out)
    try:
        return int(call.arguments.command(call))
    except SgpudError as error:
        print(f"sgpud: {_lines(error)}", file=err)
        return error.exit_status
    except OSError as error:
        # Keep Python from reporting at exit that standard output cannot be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 0  # the reader has closed the pipe
        print(f"sgpud: {_lines(error)}", file=err)
        return 1


def _lines(error: Exception) -> str:
    """An error's message, a line for each problem, without control characters."""
    return "\n".join(map(one_line, str(error).split("\n")))


def _stdout() -> TextIO:
    """Standard output, for any character; discarded if it is closed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout or io.StringIO()


def _seconds(text: str) -> float:
    """An argument that is a time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600.0:  # noqa: PLR2004 - an hour
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return value


class _Parser(argparse.ArgumentParser):
    """Suggests a command for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        """Exit with what is wrong, and what may have been meant."""
        found = re.match(r"argument COMMAND: invalid choice: '([^']*)' \((.*)\)", message)
        if found:
            names = re.findall(r"[a-z][a-z-]*", found[2].removeprefix("choose from"))
            near = difflib.get_close_matches(found[1], names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "see sgpud --help"
            message = f"no such command: {found[1]!r}; {hint}"
        super().error(message)


def _shared() -> tuple[argparse.ArgumentParser, ...]:
    """Options that commands share: all, `--json`, `--set`, and those that read the node."""
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON instead of text")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--run-dir", default=RUN, metavar="DIR", help=f"directory of the daemon's sockets ({RUN})"
    )
    sets = argparse.ArgumentParser(add_help=False)
    sets.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a key of the file, e.g. sharing.duplication_factor=10; repeatable",
    )
    node = argparse.ArgumentParser(add_help=False)
    node.add_argument("--config", metavar="FILE", help=f"configuration file ({CONFIG})")
    node.add_argument(
        "--fake-gpus",
        "--simulate",
        metavar="FILE",
        help="read fake GPUs from FILE instead of the driver; --simulate is an alias",
    )
    node.add_argument("--plugin-dir", metavar="DIR", help="override [kubelet] plugin_directory")
    return common, as_json, sets, node


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--state-dir", default=STATE, metavar="DIR", help=f"directory of the saved state ({STATE})"
    )
    run.add_argument(
        "--strict", action="store_true", help="refuse to start on the last good configuration"
    )
    run.add_argument(
        "--no-wait",
        action="store_true",
        help="exit instead of standing by while another sgpud serves the node",
    )
    run.add_argument(
        "--force",
        action="store_true",
        help="change [kubelet] api even while pods hold what the other one granted",
    )
    run.add_argument("--watch-config", action="store_true", help="reload when the file changes")


def _add_dra_options(dra: argparse.ArgumentParser) -> None:
    text = (
        "class: print the DeviceClasses of a configuration, one for each resource name, for"
        " `kubectl apply -f -`; switch: switch this node to the [kubelet] api of the configuration,"
        " step by step and without a drain, ^C cancels; remove-slices: delete the ResourceSlices of"
        " this node, unless claims are held"
    )
    dra.add_argument("what", choices=["class", "switch", "remove-slices"], help=text)
    dra.add_argument("--config", metavar="FILE", help=f"configuration file ({CONFIG})")
    dra.add_argument(
        "--state-dir",
        default=STATE,
        metavar="DIR",
        help=f"remove-slices: directory of the saved state ({STATE})",
    )
    dra.add_argument("--force", action="store_true", help="remove-slices: even if claims are held")
    dra.add_argument(
        "--status-period",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="switch: the kubelet's nodeStatusUpdateFrequency in seconds (10)",
    )


def _add_helper_options(helper: argparse.ArgumentParser) -> None:
    helper.add_argument(
        "--state-dir",
        default=STATE,
        metavar="DIR",
        help=f"directory of the helper's record ({STATE})",
    )
    helper.add_argument(
        "--cgroup-root",
        default=CGROUP,
        metavar="DIR",
        help=f"where cgroup v2 is mounted ({CGROUP})",
    )


def command_line() -> argparse.ArgumentParser:
    """The parser of every command; manuals and completions are made from it too."""
    common, as_json, sets, node = _shared()
    parser = _Parser(
        prog="sgpud",
        description="Share the NVIDIA GPUs of this node between pods: a kubelet device plugin.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sgpud {__version__}")
    words = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[Invocation], int], text: str, *parents: Any) -> Any:
        parents = (common, *parents)
        made = words.add_parser(name, help=text, description=text, parents=parents)
        made.set_defaults(command=command)
        return made

    run = add("run", commands.run, "Run the daemon in the foreground.", sets, node)
    _add_run_options(run)
    text = "Run the privileged helper that sets memory limits (sgpud-limits.service)."
    _add_helper_options(add("limits-helper", commands.limits_helper, text))
    check = add("check-config", commands.check_config, "Check a configuration file.", as_json, sets)
    check.add_argument(
        "file", nargs="?", default=CONFIG, metavar="FILE", help=f"the file to check ({CONFIG})"
    )
    rooted = argparse.ArgumentParser(add_help=False)
    rooted.add_argument(
        "--root", default="/", metavar="DIR", help="look at the node whose / is mounted at DIR"
    )
    text = "Print DeviceClasses, switch this node between the two APIs, or remove its slices."
    _add_dra_options(add("dra", commands.dra, text, sets))
    text = "List the GPUs of this node, and how each is shared."
    add("gpus", commands.gpus, text, as_json, sets, node, rooted)
    text = "Show what is advertised, or would be, and what a reload would change."
    add("plan", commands.plan, text, as_json, sets, node)
    text = "Check this node: what each finding means, and what to do."
    add("doctor", commands.doctor, text, as_json, sets, node, rooted)
    text = "Explain the state of a pod, a share or a GPU, or why a pod did not start."
    why = add("explain", commands.explain, text, as_json)
    why.add_argument(
        "about",
        metavar="POD|SHARE|GPU",
        help="pod (NAME, NAMESPACE/NAME or UID), share id, or GPU (UUID or index)",
    )
    text = "Show the node: its GPUs, who holds them, who uses them, and what is wrong."
    shown = add("status", commands.status, text, as_json)
    shown.add_argument(
        "--names",
        choices=list(names.KINDS),
        help="print only the names that other commands take, one a line, e.g. for completion",
    )
    top = add(
        "top", commands.top, "Show the status live; sort by memory, use or pod, filter, scroll."
    )
    top.add_argument(
        "--every", type=_seconds, default=2.0, metavar="S", help="refresh interval in seconds (2)"
    )
    text = "Reload the daemon's configuration, and show what changed."
    add("reload", commands.reload, text, as_json)
    text = "Release the driver, to unload it or to reset a GPU."
    add("release", commands.release, text, as_json)
    add("acquire", commands.acquire, "Read the GPUs again after a release.", as_json)
    for verb, said, text in output.WORDS:
        word = add(verb, commands.about(verb, said), text, as_json)
        word.add_argument("gpu", metavar="GPU", help="UUID or index")
    listed = add(
        "xids",
        commands.xids,
        "List what each XID means on this node, and how to reset a GPU.",
        as_json,
    )
    listed.add_argument(
        "--config", metavar="FILE", help=f"configuration file ({CONFIG}, if it exists)"
    )
    listed.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a key of the file; repeatable",
    )
    played = add(
        "simulate",
        commands.simulate,
        "Simulate a list of pods on nodes that exist only in files.",
        as_json,
        sets,
    )
    add_arguments(played, CONFIG)
    converted = add(
        "convert",
        commands.convert,
        "Convert another GPU plugin's configuration to an sgpud.toml.",
        as_json,
    )
    converted.add_argument(
        "file",
        metavar="FILE",
        help="configuration of NVIDIA's or GKE's plugin, or a GKE node pool; - is stdin",
    )
    converted.add_argument(
        "--entry", metavar="NAME", help="the configuration to convert, if FILE has several"
    )
    return parser
