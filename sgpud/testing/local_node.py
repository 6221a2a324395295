"""A node on this machine: the real daemon in a process, against the stand-in kubelet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from sgpud.testing.kubelet.stand_in import StandInKubelet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

WITHIN = 60.0
"""Seconds that any step may take on a slow machine."""
_OF_SYSTEMD = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"}
"""What whoever starts the daemon from within a service must not hand on."""


class LocalNode:
    """Everything is in one folder. It starts with the `with`, and ends with it."""

    def __init__(self, folder: Path, config: str, fake_gpus: str | None) -> None:
        """`config` and `fake_gpus` are the texts of the files; None: the GPUs of this machine."""
        self.folder = folder
        self.log = folder / "sgpud.log"
        self.kubelet = StandInKubelet(folder / "device-plugins", folder / "podresources.sock")
        self._config = folder / "sgpud.toml"
        self._fake_gpus = None if fake_gpus is None else folder / "gpus.toml"
        if self._fake_gpus is not None:
            self._fake_gpus.write_text(fake_gpus or "")
        self.configure(config)

    def __enter__(self) -> Self:
        """Start the kubelet, then the daemon."""
        self.kubelet.start()
        try:
            self._daemon: subprocess.Popen[bytes] = self._start()
        except BaseException:
            self.kubelet.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the daemon if it still runs, whatever happened; show its log after an error."""
        if self.running:
            self._daemon.kill()
            self._daemon.wait()
        self.kubelet.stop()
        if error is None:
            self.kubelet.assert_no_panics()
        elif isinstance(error, Exception):
            print(self.log.read_text(), file=sys.stderr)

    @property
    def running(self) -> bool:
        """Whether the daemon has not ended by itself."""
        return self._daemon.poll() is None

    def ended(self, within: float) -> bool:
        """Wait for the daemon to end by itself, so many seconds at most; whether it has."""
        with suppress(subprocess.TimeoutExpired):
            self._daemon.wait(within)
        return not self.running

    def configure(self, text: str) -> None:
        """Write the configuration file."""
        self._config.write_text(text)

    def command(self, name: str, *words: str) -> str:
        """Run a command of sgpud on this node; CalledProcessError if it fails."""
        return subprocess.run(
            self.words(name, *words),
            check=True,
            capture_output=True,
            text=True,
            timeout=WITHIN,
        ).stdout

    def words(self, name: str, *words: str) -> Sequence[str]:
        """The command line of a command on this node."""
        run_dir = str(self.folder / "run")
        return [sys.executable, "-m", "sgpud", name, "--run-dir", run_dir, *words]

    def stop(self) -> int:
        """Ask the daemon to end; its exit status."""
        self._daemon.send_signal(signal.SIGTERM)
        return self._daemon.wait(timeout=WITHIN)

    def _start(self) -> subprocess.Popen[bytes]:
        folder = self.folder
        options = {
            "--config": self._config,
            "--plugin-dir": folder / "device-plugins",
            "--state-dir": folder / "state",
            **({"--fake-gpus": self._fake_gpus} if self._fake_gpus else {}),
        }
        words = [str(word) for pair in options.items() for word in pair]
        environment = {name: os.environ[name] for name in os.environ.keys() - _OF_SYSTEMD}
        with self.log.open("wb") as log:
            # In a group of its own: Ctrl-C is for whoever shows this node, which then ends it.
            return subprocess.Popen(
                self.words("run", *words), env=environment, stderr=log, start_new_session=True
            )
