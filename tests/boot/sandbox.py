"""Runs in the unit's place, with its restrictions: tries one thing after the other.

The result of a try, in found.json, is "ok" or the name of its error (EPERM, EROFS, ...).
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
MACHINE = os.uname().machine
NUMBERS = {
    "x86_64": {"bpf": 321, "init_module": 175, "perf_event_open": 298, "ptrace": 101},
    "aarch64": {"bpf": 280, "init_module": 105, "perf_event_open": 241, "ptrace": 117},
}[MACHINE]


def call(name: str, *arguments: object) -> None:
    """A function of the C library, or a system call that it has no function for."""
    ctypes.set_errno(0)
    if name in NUMBERS:
        result = libc.syscall(NUMBERS[name], *arguments)
    else:
        result = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)


def write(path: str) -> None:
    """Make a file and remove it."""
    file = Path(path)
    file.write_text("x")
    file.unlink()


def put(path: str) -> None:
    """Write into a file that is there."""
    with Path(path).open("r+") as file:
        file.write("1")


def opened(path: str) -> None:
    """Open a device node; without a driver behind it that ends in ENXIO, once it is allowed."""
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def writable_code() -> None:
    """Map memory that can be written and executed."""
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def setuid_file() -> None:
    """Make a file of ours setuid."""
    file = Path("/var/lib/sgpud/setuid")
    file.touch()
    try:
        file.chmod(0o4755)
    finally:
        file.unlink()


def given_to_the_group() -> None:
    """Give a file of ours to the group of the status socket."""
    file = Path("/run/sgpud/given")
    file.touch()
    try:
        os.chown(file, -1, int(sys.argv[1]))
    finally:
        file.unlink()


def locked() -> None:
    """Lock the kubelet's folder as a daemon does."""
    descriptor = os.open("/var/lib/kubelet", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


def foreign() -> None:
    """Make a call by the ABI of 32 bits: the program ends with 0 where it is carried out."""
    status = os.waitstatus_to_exitcode(os.system("/io/foreign"))  # noqa: S605
    if status:
        raise OSError(errno.EPERM, f"ended with {status}")


def real_time() -> None:
    """Ask for real-time scheduling."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def cgroup_of_another() -> None:
    """Read which cgroup a process of another user is in."""
    text = Path(f"/proc/{sys.argv[2]}/cgroup").read_text()
    if not any(line.startswith("0::/") for line in text.splitlines()):
        raise OSError(errno.ENODATA, text)


def bound(path: str) -> None:
    """Serve a socket in a folder."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
    Path(path).unlink()


TRIES: dict[str, Callable[[], object]] = {
    "write /usr": lambda: write("/usr/x"),
    "write /etc": lambda: write("/etc/x"),
    "write /var/lib": lambda: write("/var/lib/x"),
    "write /var/lib/sgpud": lambda: write("/var/lib/sgpud/x"),
    "write /run/sgpud": lambda: write("/run/sgpud/x"),
    "write /run/cdi": lambda: write("/run/cdi/x"),
    "write /run": lambda: write("/run/x"),
    "serve in /var/lib/kubelet": lambda: bound("/var/lib/kubelet/x.sock"),
    "lock /var/lib/kubelet": locked,
    "list /home": lambda: list(Path("/home").iterdir()),
    "list /root": lambda: list(Path("/root").iterdir()),
    "see another's /tmp": lambda: Path("/tmp/of-another").read_text(),
    "open /dev/null": lambda: opened("/dev/null"),
    "open a GPU's node": lambda: opened("/dev/gpu"),
    "open another node": lambda: opened("/dev/other"),
    "AF_UNIX": lambda: socket.socket(socket.AF_UNIX).close(),
    "AF_INET": lambda: socket.socket(socket.AF_INET).close(),
    "AF_INET6": lambda: socket.socket(socket.AF_INET6).close(),
    "AF_NETLINK": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "AF_PACKET": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "writable code": writable_code,
    "setuid file": setuid_file,
    "chown to the group": given_to_the_group,
    "real time": real_time,
    "nice": lambda: os.nice(1),
    "mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "unshare": lambda: call("unshare", 0x10000000),
    "sethostname": lambda: call("sethostname", b"x", 1),
    "clock": lambda: call("adjtimex", ctypes.create_string_buffer(256)),
    "syslog": lambda: call("klogctl", 3, None, 0),
    "reboot": lambda: call("reboot", 0),
    "swapoff": lambda: call("swapoff", b"/nowhere"),
    "chroot": lambda: call("chroot", b"/"),
    "personality": lambda: call("personality", 0x0008),
    "ptrace": lambda: call("ptrace", 3, 0, 0, 0),
    "bpf": lambda: call("bpf", 0, 0, 0),
    "perf_event_open": lambda: call("perf_event_open", 0, 0, 0, 0, 0),
    "init_module": lambda: call("init_module", 0, 0, 0),
    "kernel tunable": lambda: put("/proc/sys/kernel/domainname"),
    "cgroup tree": lambda: Path("/sys/fs/cgroup/x").mkdir(),
    "kernel modules": lambda: list(Path("/usr/lib/modules").iterdir()),
    "mknod": lambda: os.mknod("/run/sgpud/node", 0o20600, os.makedev(1, 3)),
    "foreign ABI": foreign,
    "cgroup of another": cgroup_of_another,
    "NVML": lambda: ctypes.CDLL("libnvidia-ml.so.1"),
    "child": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    "inotify": lambda: call("inotify_init1", 0),
}


def tried(attempt: Callable[[], object]) -> str:
    """How it went."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def main() -> None:
    """Try everything; the restrictions that are numbers come as they are."""
    found: dict[str, object] = {name: tried(attempt) for name, attempt in TRIES.items()}
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if line
    )
    found["status"] = {key: status[key] for key in ("CapBnd", "CapEff", "NoNewPrivs", "Umask")}
    interfaces = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    found["interfaces"] = [line.split(":")[0].strip() for line in interfaces]
    Path("/var/lib/sgpud/found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
