"""A node of our own: a real containerd, and room for a kubelet, in namespaces of their own.

They see a private `/var/lib`, `/var/log`, `/run`, kernel settings and a network of loopback only,
and one process namespace: when its first process ends, everything in it is gone. The kubelet's
folder is an ordinary one outside, since a unix socket is found by its inode, whatever its path.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from attrs import define, frozen

from tests.e2e import box
from tests.e2e.waiting import until

TOOLS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "busybox")
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
ADDRESS = "192.0.2.10"
"""The node's address, on the loopback interface of its own network (RFC 5737: never routed)."""

# What a kubelet would set on the whole machine goes to files laid over these instead.
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# The first process of the node; it ends, and takes all others along, when its input closes.
FIRST_PROCESS = """
set -e
root=$1 assets=$2 address=$3; shift 3
for dir in /var/lib /var/log /run; do mount -t tmpfs tmpfs $dir; done
mkdir /var/lib/kubelet
mount --bind "$root/kubelet" /var/lib/kubelet
for setting; do
  copy=$root/settings/$(echo $setting | tr / _)
  cat /proc/sys/$setting > "$copy"
  mount --bind "$copy" /proc/sys/$setting
done
"$assets/busybox" ip link set lo up
"$assets/busybox" ip addr add $address/32 dev lo
PATH=$assets:$PATH containerd --config "$root/containerd.toml" >"$root/containerd.log" 2>&1 &
echo ready
read -r _ || :
"""


@frozen
class Assets:
    """The programs that a node is made of."""

    kubelet: Path
    folder: Path
    """Holds containerd, containerd-shim-runc-v2, ctr, runc and a static busybox."""

    def missing(self) -> tuple[str, ...]:
        """The programs that should be there and are not."""
        wanted = (self.kubelet, *(self.folder / tool for tool in TOOLS))
        return tuple(str(path) for path in wanted if not os.access(path, os.X_OK))


def _containerd_config(root: Path, assets: Assets) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""
version = 2
root = "{root}/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
[{cri}]
sandbox_image = "{box.NAME}"
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "{root}/cni"
conf_dir = "{root}/cni"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
BinaryName = "{assets.folder}/runc"
"""


def _hierarchies() -> list[Path]:
    """The roots of the cgroup trees: one with cgroup v2, one for each controller with v1."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return [path for path in top.iterdir() if path.is_mount()]


@define
class Node:
    """The node's folder, namespaces, cgroups and containerd; nothing is left after `stop`."""

    root: Path
    """An empty folder with a short path: it holds unix sockets, whose paths end at 107 bytes."""
    assets: Assets
    _first: subprocess.Popen[str] | None = None

    @property
    def cgroup(self) -> str:
        """The cgroup under which all pods are, in every hierarchy."""
        return f"/{self.root.name}"

    def start(self) -> None:
        """Start containerd and give it the image."""
        for name in ("kubelet", "manifests", "settings", "out", "cni"):
            (self.root / name).mkdir()
        (self.root / "containerd.toml").write_text(_containerd_config(self.root, self.assets))
        box.write_archive(self.assets.folder / "busybox", self.root / "image.tar")
        for hierarchy in _hierarchies():
            (hierarchy / self.root.name).mkdir()
        unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
        script = ["sh", "-c", FIRST_PROCESS, "node", str(self.root), str(self.assets.folder)]
        self._first = subprocess.Popen(
            [*unshare, *script, ADDRESS, *KERNEL_SETTINGS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        with self._first.stdout as said:
            assert said.readline() == "ready\n", "the namespaces could not be made"
        # The import fails until containerd listens.
        load = ("images", "import", str(self.root / "image.tar"))
        until(lambda: self.run(*self.ctr(*load)).returncode == 0, "containerd takes the image")

    def stop(self) -> None:
        """End every process of the node and remove its cgroups."""
        if self._first is not None:
            assert self._first.stdin is not None
            self._first.stdin.close()
            self._first.wait(20)
        for hierarchy in _hierarchies():
            for folder, _, _ in os.walk(hierarchy / self.root.name, topdown=False):
                Path(folder).rmdir()

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` in the node's namespaces."""
        return ["nsenter", *self._namespaces(), "--pid", *command]

    def beside(self, *command: str) -> list[str]:
        """As `inside`, and a process of ours: a signal for the command line reaches it."""
        return ["nsenter", *self._namespaces(), *command]

    def _namespaces(self) -> tuple[str, ...]:
        assert self._first is not None
        task = Path(f"/proc/{self._first.pid}/task/{self._first.pid}")
        (first,) = (task / "children").read_text().split()
        return ("--target", first, "--mount", "--net")

    def run(self, *command: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end, which comes in time."""
        return subprocess.run(
            self.inside(*command), capture_output=True, text=True, timeout=seconds, check=False
        )

    def ctr(self, *arguments: str) -> tuple[str, ...]:
        """The command, for `run`, that asks containerd about the kubelet's containers."""
        return (str(self.assets.folder / "ctr"), "-n", "k8s.io", *arguments)

    def kill_containers(self) -> None:
        """Kill every container, as a reboot would; their records stay."""
        listed = self.run(*self.ctr("tasks", "list", "--quiet"))
        for name in listed.stdout.split():
            self.run(*self.ctr("tasks", "kill", "--signal", "SIGKILL", name))
