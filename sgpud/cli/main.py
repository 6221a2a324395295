"""The command `sgpud`. Twisted and gRPC are imported only by the commands that need them."""

from __future__ import annotations

import signal

# The default action of SIGHUP would end a daemon that is still importing.
signal.signal(signal.SIGHUP, signal.SIG_IGN)

import sys  # noqa: E402 - see above

# Twisted imports pyOpenSSL where it is installed: a fifth of the start, for TLS that nobody speaks.
sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]

import argparse  # noqa: E402
import io  # noqa: E402
import os  # noqa: E402
from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from typing import Any, TextIO  # noqa: E402

from sgpud import __version__  # noqa: E402
from sgpud.cli import commands  # noqa: E402
from sgpud.cli.commands import CONFIG, EX_CONFIG, Invocation  # noqa: E402
from sgpud.cli.screens import output  # noqa: E402
from sgpud.cli.simulate.arguments import add_arguments  # noqa: E402
from sgpud.core.errors import SgpudError  # noqa: E402

STATE = "/var/lib/sgpud"
RUN = "/run/sgpud"

_EPILOG = """\
A node in a few lines:
  sgpud gpus               which GPUs are there
  sgpud check-config       is /etc/sgpud.toml good
  sgpud plan               what is or would be advertised, and what a reload would change
  sgpud doctor             what stands against it, and what to do
  systemctl start sgpud    share them
  sgpud status             who holds and uses them, and what is wrong
  sgpud reload             use the edited file; the kubelet loses nothing meanwhile

Exit status: 0 done; 1 it did not work, standard error says why; 2 wrong arguments; 3 doctor found
something to look at, 4 something broken; 75 only a new start helps (another sgpud serves the node
and --no-wait is set, or a mount is stale); 78 the configuration is bad.
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
        print(f"sgpud: {error}", file=err)
        return EX_CONFIG if hasattr(error, "problems") else 1
    except OSError as error:
        # Nothing may complain at exit about what could not be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 0  # whoever read the output has seen enough
        print(f"sgpud: {error}", file=err)
        return 1


def _stdout() -> TextIO:
    """Standard output, for every character there is; nowhere, where it is closed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout or io.StringIO()


def _seconds(text: str) -> float:
    """An argument that is a time in seconds."""
    value = float(text)
    if not 0.1 <= value <= 3600.0:  # noqa: PLR2004 - an hour
        raise ValueError(text)
    return value


def _shared() -> tuple[argparse.ArgumentParser, ...]:
    """The options of every command, `--json`, `--set`, and those of commands that read the node."""
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON instead of text")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--run-dir", default=RUN, metavar="DIR", help=f"the running daemon's sockets ({RUN})"
    )
    sets = argparse.ArgumentParser(add_help=False)
    sets.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set a key over the file, e.g. sharing.duplication_factor=10; may be repeated",
    )
    node = argparse.ArgumentParser(add_help=False)
    node.add_argument("--config", default=CONFIG, metavar="FILE", help=f"the file ({CONFIG})")
    node.add_argument(
        "--simulate", metavar="FILE", help="take the GPUs from this file instead of the driver"
    )
    node.add_argument(
        "--plugin-dir", metavar="DIR", help="over [kubelet] plugin_directory of the file"
    )
    return common, as_json, sets, node


def command_line() -> argparse.ArgumentParser:
    """The parser of every command; manuals and completions are made from it too."""
    common, as_json, sets, node = _shared()
    parser = argparse.ArgumentParser(
        prog="sgpud",
        description="Shares the NVIDIA GPUs of this node between pods: a kubelet device plugin.",
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
    run.add_argument("--state-dir", default=STATE, metavar="DIR", help=f"kept files ({STATE})")
    run.add_argument(
        "--strict", action="store_true", help="never start on the last good configuration"
    )
    run.add_argument(
        "--no-wait", action="store_true", help="end instead of standing by for another sgpud"
    )
    run.add_argument(
        "--watch-config", action="store_true", help="reload when the file's content changes"
    )
    check = add("check-config", commands.check_config, "Check a configuration file.", as_json, sets)
    check.add_argument("file", nargs="?", default=CONFIG, metavar="FILE")
    add(
        "gpus",
        commands.gpus,
        "List the GPUs of this node, and how each is shared.",
        as_json,
        sets,
        node,
    )
    text = "Show what is advertised, or would be, and what a reload would change."
    add("plan", commands.plan, text, as_json, sets, node)
    text = "Check this node, and say of each finding what it means and what to do."
    checked = add("doctor", commands.doctor, text, as_json, sets, node)
    checked.add_argument(
        "--root", default="/", metavar="DIR", help="look at the node whose / is mounted at DIR"
    )
    text = "Say why a pod, a share or a GPU is as it is, and why a pod did not start."
    why = add("explain", commands.explain, text, as_json)
    why.add_argument(
        "about",
        metavar="POD|SHARE|GPU",
        help="a pod (NAME, NAMESPACE/NAME or UID), the id of a share, a GPU's UUID or index",
    )
    text = "Show the node: its GPUs, who holds them, who uses them, and what is wrong."
    add("status", commands.status, text, as_json)
    top = add("top", commands.top, "Show the same live, by memory; q quits.")
    top.add_argument(
        "--every", type=_seconds, default=2.0, metavar="S", help="seconds between two looks (2)"
    )
    text = "Have the daemon read its configuration again, and say what changed."
    add("reload", commands.reload, text, as_json)
    text = "Let go of the driver, so that it can be unloaded or a GPU reset."
    add("release", commands.release, text, as_json)
    add("acquire", commands.acquire, "Take the GPUs up again after a release.", as_json)
    for verb, said, text in output.WORDS:
        word = add(verb, commands.about(verb, said), text, as_json)
        word.add_argument("gpu", metavar="GPU", help="a UUID, or an index")
    listed = add(
        "xids", commands.xids, "List what each XID means here, and how a GPU is reset.", as_json
    )
    listed.add_argument("--config", metavar="FILE", help=f"the file ({CONFIG}, if there)")
    listed.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    played = add(
        "simulate", commands.simulate, "Play a list of pods on simulated nodes.", as_json, sets
    )
    add_arguments(played, CONFIG)
    text = "Write another GPU plugin's configuration as an sgpud.toml."
    converted = add("convert", commands.convert, text, as_json)
    converted.add_argument(
        "file", metavar="FILE", help="of NVIDIA's or GKE's plugin, or a GKE node pool; - is stdin"
    )
    converted.add_argument(
        "--entry", metavar="NAME", help="the configuration to convert, of several"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
