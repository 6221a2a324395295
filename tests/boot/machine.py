"""A Debian booted with a real systemd as its first process, in a container of systemd-nspawn."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.e2e.waiting import until

if TYPE_CHECKING:
    from typing_extensions import Self

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHARED = "/io"
"""Where the container has the folder of files that it is given."""
BOOT_WITHIN = 120.0
RUN_WITHIN = 120.0
"""Seconds that any command may take on a slow machine."""
_START = """
set -eu
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd "/sys/fs/cgroup/$CGROUP"
echo $$ > "/sys/fs/cgroup/$CGROUP/cgroup.procs"
exec systemd-nspawn --quiet --directory="$ROOT" --register=no --keep-unit --private-network \
    --machine=sgpud-boot --kill-signal=SIGRTMIN+4 --system-call-filter=bpf --resolv-conf=off \
    --link-journal=no --bind="$IO:/io" "$@" --boot
"""
# - A mount namespace of its own has a pure cgroup v2 tree, also where the host's is mixed with v1.
# - The filter lets systemd install its device filter: without it nothing enforces DeviceAllow=.


_UNSHARED = ("unshare", "--mount", "--propagation", "private")
_ENTERED = ("nsenter", "--all", "--root")


class CommandError(AssertionError):
    """A command in the container ended with another status than was expected."""


class Machine:
    """One boot. Unless `keep` is set, all that is written in it is gone when it ends."""

    def __init__(self, root: Path, options: Sequence[str] = (), *, keep: bool = False) -> None:
        """`options` are more of systemd-nspawn's."""
        self._root = root
        self._options = (*options, *(() if keep else ("--volatile=overlay",)))
        self._folder = tempfile.TemporaryDirectory(prefix="sgpud-boot-", dir="/tmp")
        self.shared = Path(self._folder.name) / "io"
        """A folder that the container sees as /io."""
        self.shared.mkdir()
        self._console = Path(self._folder.name) / "console"
        self._cgroup = f"sgpud-boot-{os.getpid()}-{Path(self._folder.name).name[-8:]}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0
        """The process id of the container's systemd, as the host sees it."""

    def __enter__(self) -> Self:
        """Boot, until systemd has started what it starts."""
        self.boot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Power off; an assertion that failed gets the end of the journal."""
        if isinstance(error, AssertionError) and self.running:
            said = self.run("journalctl --no-pager -n 60 -o short-monotonic", check=False)
            error.args = (f"{error}\n--- the journal:\n{said.stdout}",)
        self.close()

    @property
    def running(self) -> bool:
        """Whether it is booted."""
        return self._nspawn is not None and self._nspawn.poll() is None

    def boot(self, *, wait: bool = True) -> None:
        """Start it. With `wait`, until every job of the boot is done."""
        environment = {
            "PATH": PATH,
            "ROOT": str(self._root),
            "IO": str(self.shared),
            "CGROUP": self._cgroup,
            # systemd-nspawn would otherwise start its own scope, and take the terminal.
            "SYSTEMD_LOG_TARGET": "console",
        }
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [*_UNSHARED, "bash", "-c", _START, "start", *self._options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self.leader = until(self._leader, "systemd runs in the container", BOOT_WITHIN)
        if wait:
            until(self._booted, "the container has booted", BOOT_WITHIN)

    def run(
        self,
        command: str,
        *,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        timeout: float = RUN_WITHIN,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the container; CommandError where `check` finds it failed."""
        variables = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(environment or {})}
        done = subprocess.run(
            [*_ENTERED, f"--target={self.leader}", "--wdns=/", "bash", "-c", command],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise CommandError(f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def says(self, command: str) -> str:
        """What a command that succeeds prints."""
        return self.run(command).stdout.strip()

    def path(self, name: str) -> Path:
        """A path in the container, for the host to use: sockets too."""
        return Path(f"/proc/{self.leader}/root") / name.lstrip("/")

    def write(self, name: str, text: str) -> None:
        """Write a file in the container, whole in one moment."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(text)
        draft.replace(path)

    def console(self) -> str:
        """What was said before there was a journal."""
        return self._console.read_text(errors="replace")

    def power_off(self) -> None:
        """Power off as a machine does; `boot` starts it again, with what was kept."""
        nspawn = self._nspawn
        if nspawn is None:
            return
        if nspawn.poll() is None:
            nspawn.send_signal(signal.SIGTERM)
            try:
                nspawn.wait(60)
            except subprocess.TimeoutExpired:
                nspawn.kill()
                nspawn.wait(30)
        self._nspawn = None

    def close(self) -> None:
        """Power off and leave nothing behind."""
        self.power_off()
        for tree in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
            _remove_cgroup(tree / self._cgroup)
        self._folder.cleanup()

    def _leader(self) -> int:
        """The first process of the container, once it is systemd."""
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended:\n{self.console()}")
        for pid in _children(self._nspawn.pid):
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                name, *_ = Path(f"/proc/{pid}/comm").read_text().split()
                numbers = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()
                if name == "systemd" and len(numbers) > 2 and numbers[-1] == "1":
                    return pid
        return 0

    def _booted(self) -> bool:
        state = self.run("systemctl is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}


def _children(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found + [inner for child in found for inner in _children(child)]


def _remove_cgroup(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
