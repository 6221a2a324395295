"""What the node offers to inject GPUs into containers: device nodes, CDI specs, a runtime."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import evolve
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Reactor, Timer, in_thread
from sgpud.core.allocation.injection import DeviceNode, GpuAccess, NodeHost
from sgpud.core.gpu.gpu import Gpu, Mig
from sgpud.core.limits.caps import CAP_KIND, cap_of_device
from sgpud.core.sharing.rules import HostMount, InjectionSettings
from sgpud.files import entries, read_regular, within
from sgpud.gpus.cap_specs import write_caps
from sgpud.gpus.cdi import FOLDERS, cdi_name, read_specs
from sgpud.gpus.container_runtime import (
    cdi_folders,
    nvidia_config,
    nvidia_runtime,
    takes_mounts,
    there,
    unlimited,
)

REQUIRED = ("nvidiactl", "nvidia-uvm")
OPTIONAL = ("nvidia-uvm-tools", "nvidia-modeset")
_WSL2 = "/dev/dxg"
"""The node of all GPUs of a machine under WSL2, where NVML reports no minor numbers."""
_ACCESS_FILE = 1 << 12
"""Bytes of a capability's file, at most."""
_CONTROLLERS = "/sys/fs/cgroup/cgroup.controllers"
LIMITING = ("dmem", "misc")
"""The cgroup controllers of which the driver needs one for memory limits."""
_CAPABILITIES = "/proc/driver/nvidia/capabilities"
_MINOR = re.compile(r"^DeviceFileMinor:\s*([0-9]{1,9})\s*$", re.MULTILINE)


def look(
    root: Path,
    gpus: Iterable[Gpu],
    cdi_kind: str,
    mounts: Iterable[HostMount],
    on_other: Callable[[str], None] = lambda _reason: None,
) -> NodeHost:
    """Look at the node below `root`; never raises, what cannot be read counts as absent.

    `on_other` as of read_specs.

    Nothing here opens a device node. Fake GPUs have no access: their containers get
    variables only.
    """
    specs = read_specs(root, cdi_kind, cdi_folders(root) or FOLDERS, on_other=on_other)
    missing = [f"/dev/{name}" for name in REQUIRED if not there(root, f"/dev/{name}")]
    windows = there(root, _WSL2)
    access = {}
    for gpu in gpus:
        if gpu.fake:
            continue
        wanted, reason = _nodes(root, gpu)
        absent = [node for node in wanted if not there(root, node)]
        name, why = cdi_name(specs, gpu, () if reason else wanted)
        if absent and not reason:
            reason = f"{' and '.join(absent)} missing: run `nvidia-modprobe -c {gpu.minor}`"
        nodes = () if reason else tuple(DeviceNode(node, node) for node in wanted)
        device = specs.devices.get(name.partition("=")[2])
        access[gpu.uuid] = GpuAccess(nodes, reason, name, why, bool(device and device.limited))
    runtime = nvidia_config(root)
    present = tuple(mount for mount in mounts if there(root, mount.host))
    caps = (cap_of_device(f"{CAP_KIND}={each}") for each in specs.others.get(CAP_KIND, ()))
    return NodeHost(
        runtime=nvidia_runtime(root),
        volume_mounts=takes_mounts(runtime),
        common_nodes=tuple(
            DeviceNode(f"/dev/{name}", f"/dev/{name}")
            for name in (*REQUIRED, *OPTIONAL)
            if there(root, f"/dev/{name}")
        ),
        device_nodes_missing=_missing(missing, windows=windows),
        mounts=present,
        empty_mounts=frozenset(
            mount.host
            for mount in present
            if within(root, mount.host).is_dir() and not entries(root, mount.host)
        ),
        access=access,
        unlimited=unlimited(root, runtime),
        cgroup_problem=_cgroup_problem(root),
        caps=frozenset(cap for cap in caps if cap),
    )


def _cgroup_problem(root: Path) -> str:
    """Why the node's cgroups cannot have memory limits, or empty."""
    try:
        found = read_regular(within(root, _CONTROLLERS), _ACCESS_FILE).decode().split()
    except (OSError, UnicodeDecodeError):
        return "the node does not use cgroup v2 alone"
    if any(name in found for name in LIMITING):
        return ""
    return f"its kernel has no cgroup controller {' or '.join(LIMITING)}"


def _missing(nodes: Sequence[str], *, windows: bool) -> str:
    if not nodes:
        return ""
    if windows:
        return (
            "this is WSL2, where every GPU is behind /dev/dxg and has no node of its own: install"
            " nvidia-container-toolkit, which hands that over (nvidia-runtime), or make a CDI spec"
            " with it (cdi)"
        )
    return f"{' and '.join(nodes)} missing: run `nvidia-modprobe -c0 -u`"


def _nodes(root: Path, gpu: Gpu) -> tuple[tuple[str, ...], str]:
    """The device nodes of one GPU on the host, or none and the reason."""
    if gpu.minor is None and there(root, _WSL2):
        return (_WSL2,), ""
    if gpu.minor is None:
        return (), "NVML does not report its minor number"
    own = f"/dev/nvidia{gpu.minor}"
    if gpu.mig is None:
        return (own,), ""
    nodes = [own]
    for access in _access_files(gpu.minor, gpu.mig):
        try:
            found = _MINOR.search(read_regular(within(root, access), _ACCESS_FILE).decode())
        except (OSError, UnicodeDecodeError):
            found = None
        if not found:
            return (), f"{access} does not contain the minor number of its capability node"
        nodes.append(f"/dev/nvidia-caps/nvidia-cap{found[1]}")
    return tuple(nodes), ""


def _access_files(minor: int, mig: Mig) -> tuple[str, str]:
    instance = f"{_CAPABILITIES}/gpu{minor}/mig/gi{mig.gi}"
    return f"{instance}/access", f"{instance}/ci{mig.ci}/access"


CHECK_EVERY = 30.0
"""Seconds between checks: CDI specs and device nodes may be created long after the start."""


class HostWatch:
    """Reports what the node offers for these GPUs, at first and after each change.

    It keeps the CDI spec of memory caps on the disk as well: what a check finds there can be given.
    """

    _log = Logger()

    def __init__(self, reactor: Reactor, root: Path, changed: Callable[[NodeHost], None]) -> None:
        """`root` is the node's file system; `changed` is called on the reactor."""
        self._reactor = reactor
        self._root = root
        self._changed = changed
        self._wanted: tuple[tuple[Gpu, ...], InjectionSettings] = ((), InjectionSettings())
        self._caps: frozenset[int] | None = None
        self._known: NodeHost | None = None
        self._passed_over: set[str] = set()
        self._busy = False
        self._again = False
        self._timer = Timer(reactor)
        self._stopped = False

    def look_for(self, gpus: Sequence[Gpu], injection: InjectionSettings) -> None:
        """Check for these from now on, starting now."""
        real = tuple(gpu for gpu in gpus if not gpu.fake)
        if (real, injection) != self._wanted:
            self._wanted = (real, injection)
            self._check()

    def offer_caps(self, caps: frozenset[int]) -> None:
        """Have a CDI device for each of these memory caps, in MiB, and for no others, from now on.

        Only for the process that serves the node.
        """
        if caps != self._caps:
            self._caps = caps
            self._check()

    def stop(self) -> None:
        """Stop checking."""
        self._stopped = True
        self._cancel()

    def _check(self) -> None:
        self._cancel()
        if self._busy:
            self._again = True
            return
        gpus, injection = self._wanted
        if not gpus or self._stopped:
            return
        self._busy = True
        # In a thread: a folder of CDI specs can be large, and the disk slow.
        checking = in_thread(self._reactor, lambda: self._look(gpus, injection, self._caps))
        checking.addBoth(self._checked)

    def _look(
        self, gpus: Sequence[Gpu], injection: InjectionSettings, caps: frozenset[int] | None
    ) -> NodeHost:
        problem = "" if caps is None else write_caps(self._root, caps)
        found = look(self._root, gpus, injection.cdi_kind, injection.mounts, self._pass_over)
        return evolve(found, caps_problem=problem)

    def _pass_over(self, reason: str) -> None:
        if reason not in self._passed_over:
            self._passed_over.add(reason)
            self._log.debug("Ignoring a CDI spec of another kind: {reason}", reason=reason)

    def _checked(self, result: NodeHost | Failure) -> None:
        self._busy = False
        if self._stopped:
            return
        if isinstance(result, Failure):
            self._log.failure("Checking the node's device nodes and CDI specs failed", result)
        elif result != self._known:
            self._known = result
            self._changed(result)
        again, self._again = self._again, False
        self._timer.set(0.0 if again else CHECK_EVERY, self._check)

    def _cancel(self) -> None:
        self._timer.cancel()
