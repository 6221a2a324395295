"""Runs the daemon in this process: reactor, logging, signals, exit status."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Importing inotify runs ldconfig: a fork, unsafe once gRPC has threads.
import twisted.internet.inotify  # noqa: F401
from twisted.internet import reactor as global_reactor
from twisted.internet.error import ReactorNotRunning

from sgpud.app import Daemon
from sgpud.options import Options, overrides
from sgpud.serve.logging.output import start_logging

if TYPE_CHECKING:
    from sgpud.gpus.fake.file import FakeNode

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter while others wait: a busy reactor then delays Allocate
by 8.5 ms at the 99th percentile instead of 33."""
STOP_TIMEOUT = 1.8
"""Seconds from the stop signal until the process exits, whatever hangs."""


def run(
    arguments: argparse.Namespace,
    config: str,
    environment: Mapping[str, str],
    probe: subprocess.Popen[bytes] | None = None,
) -> int:
    """Run until a signal stops it; the exit status. ConfigError when it cannot start.

    `probe`: the process that reads the GPUs, if it was started already.
    """
    gc.freeze()
    gc.enable()
    os.umask(0o077)
    sys.setswitchinterval(SWITCH_INTERVAL)
    reactor: Any = global_reactor
    options = Options(
        config=Path(config),
        overrides=overrides(arguments),
        fake_gpus=_fake_gpus(arguments.fake_gpus),
        state=Path(arguments.state_dir),
        run=Path(arguments.run_dir),
        strict=arguments.strict,
        wait=not arguments.no_wait,
        force=arguments.force,
        watch_config=arguments.watch_config,
        probe=probe,
    )
    daemon = Daemon(
        reactor,
        options,
        environment,
        lambda log: start_logging(log.format.value, log.level.value, sys.stderr, environment),
    )

    def stop() -> object:
        # Whatever hangs (a gRPC thread, a disk) must not keep the process alive: the lock and the
        # sockets are released by then.
        timer = threading.Timer(STOP_TIMEOUT, os._exit, (daemon.exit_status,))
        timer.daemon = True
        timer.start()
        return daemon.stop()

    def end() -> None:
        # A second signal may arrive while the reactor stops.
        with suppress(ReactorNotRunning):
            reactor.stop()

    def install_signal_handlers() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: reactor.callFromThread(end))

    reactor.callWhenRunning(install_signal_handlers)
    reactor.callWhenRunning(daemon.start)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(daemon.request_reload))
    reactor.run()
    return daemon.exit_status


def _fake_gpus(file: str | None) -> FakeNode | None:
    if not file:
        return None
    from sgpud.gpus.fake.file import load  # noqa: PLC0415 - no node needs it

    return load(Path(file))
