"""Runs the daemon in this process: reactor, logs, signals, exit status."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# inotify runs ldconfig when it is imported: a fork, unsafe once gRPC has threads.
import twisted.internet.inotify  # noqa: F401
from twisted.internet import reactor as installed
from twisted.internet.error import ReactorNotRunning

from sgpud.app import Daemon
from sgpud.gpus.fake.file import load as load_simulation
from sgpud.options import Options
from sgpud.serve.logging.output import start_logging

SWITCH = 0.0005
"""Seconds a thread keeps the interpreter while others wait: a busy reactor then delays an Allocate
by 8.5 ms at the 99th percentile instead of 33."""
END_WITHIN = 1.8
"""Seconds from the order to stop until the process ends, whatever still hangs in it."""


def overrides(arguments: argparse.Namespace) -> tuple[str, ...]:
    """What the command line sets over the file."""
    directory = arguments.plugin_dir
    quoted = directory.replace("\\", "\\\\").replace('"', '\\"') if directory else ""
    named = (f'kubelet.plugin_directory="{quoted}"',) if directory else ()
    return (*arguments.set, *named)


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run until a signal ends it; the exit status. ConfigError when it cannot start."""
    gc.freeze()
    gc.enable()
    os.umask(0o077)
    sys.setswitchinterval(SWITCH)
    reactor: Any = installed
    options = Options(
        config=Path(arguments.config),
        overrides=overrides(arguments),
        simulation=load_simulation(Path(arguments.simulate)) if arguments.simulate else None,
        state=Path(arguments.state_dir),
        run=Path(arguments.run_dir),
        strict=arguments.strict,
        wait=not arguments.no_wait,
        watch_config=arguments.watch_config,
    )
    daemon = Daemon(
        reactor,
        options,
        environment,
        lambda log: start_logging(log.format.value, log.level.value, sys.stderr, environment),
    )

    def stop() -> object:
        # Whatever hangs (a thread in gRPC, a disk) must not keep the process: the lock and the
        # sockets are given up by then.
        timer = threading.Timer(END_WITHIN, os._exit, (daemon.exit_status,))
        timer.daemon = True
        timer.start()
        return daemon.stop()

    def end() -> None:
        # A second order may come while the first one is carried out.
        with suppress(ReactorNotRunning):
            reactor.stop()

    def obey() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: reactor.callFromThread(end))

    reactor.callWhenRunning(obey)
    reactor.callWhenRunning(daemon.start)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(daemon.reload))
    reactor.run()
    return daemon.exit_status
