"""What is known of a node without a running daemon: its GPUs, and the plan for them."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, field, frozen
from twisted.internet import reactor as installed

from sgpud.config.load import load
from sgpud.config.problems import ConfigError
from sgpud.config.values import Config
from sgpud.core.gpu.gpu import Gpu, UnreadableGpu
from sgpud.core.health.node_health import gpus_seen
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import plan as make_plan
from sgpud.core.status.view import (
    ConfigurationView,
    Counters,
    InstanceView,
    Timestamps,
    document,
    view,
)
from sgpud.gpus.fake.file import load as load_fake_gpus
from sgpud.gpus.fake.monitor import FakeMonitor
from sgpud.gpus.host import look
from sgpud.gpus.nvml.child import start_child
from sgpud.gpus.nvml.driver_files import signs
from sgpud.gpus.nvml.faults import GpuFault
from sgpud.gpus.nvml.monitor import Machine, NvmlMonitor
from sgpud.kubelet.checkpoint import CheckpointError, read
from sgpud.kubelet.directory import CHECKPOINT
from sgpud.options import overrides


@frozen
class FoundGpus:
    """The result of reading the GPUs once."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    fault: GpuFault | None = None
    errors: dict[str, str] = field(factory=dict)
    """NVML's error for each GPU that it cannot read."""
    unreadable: tuple[UnreadableGpu, ...] = ()
    """The GPUs that NVML counts and that cannot be shared."""


def gpus(arguments: argparse.Namespace, file: str) -> dict[str, Any]:
    """The GPUs of the node as a document, each with how it is shared."""
    found = read_gpus(arguments)
    try:
        sharing = load(file, overrides(arguments)).sharing
        problem = ""
    except ConfigError as error:
        sharing, problem = Config().sharing, str(error)
    entries = []
    for gpu in found.gpus:
        terms = sharing.terms(gpu)
        shares = sharing.partition(gpu, terms).shares if terms else 0
        shared = {"resource": terms.resource, "shares": shares} if terms else None
        entries.append({**asdict(sharing.sized(gpu)), "shared": shared})
    return {
        "driver": found.driver,
        "gpus": entries,
        "errors": found.errors,
        "unreadable": [asdict(gpu) for gpu in found.unreadable],
        "fault": str(found.fault) if found.fault else "",
        "configuration": problem,
    }


def plan(arguments: argparse.Namespace, file: str) -> dict[str, Any]:
    """What a daemon would advertise if started now; ConfigError for an invalid file."""
    config = load(file, overrides(arguments))
    found = read_gpus(arguments)
    directory = Path(config.kubelet.plugin_directory)
    try:
        checkpoint = read(directory / CHECKPOINT)
    except CheckpointError as error:
        checkpoint = CheckpointState(problem=str(error))
    injection = config.sharing.injection
    real = tuple(gpu for gpu in found.gpus if not gpu.fake)
    node = Node(
        sharing=config.sharing,
        checkpoint=checkpoint,
        host=look(Path("/"), real, injection.cdi_kind, injection.mounts),
    )
    if found.fault is None:
        node = gpus_seen(node, found.gpus, found.driver, time.monotonic())
    else:
        node = evolve(node, probe_problem=str(found.fault))
    node = evolve(node, unreadable=found.unreadable)
    now = time.time()
    node = advance(node, time.monotonic(), now)
    warnings = tuple(map(str, config.warnings))
    seen = view(
        node,
        make_plan(node, now),
        {},
        ConfigurationView(file, "file", warnings=warnings),
        Counters(),
        InstanceView("not running", str(directory)),
        Timestamps(time.monotonic(), now),
    )
    return {"view": document(seen), "reload": None}


def read_gpus(arguments: argparse.Namespace) -> FoundGpus:
    """Read the GPUs once, in the way the daemon does."""
    reactor: Any = installed
    found = FoundGpus()

    def end(**facts: Any) -> None:
        nonlocal found
        found = evolve(found, **facts)
        reactor.stop()

    def failed(gpu: str, error: str) -> None:
        nonlocal found
        found = evolve(found, errors={**found.errors, gpu: error})

    def inventory(seen: tuple[Gpu, ...], driver: str) -> None:
        end(gpus=seen, driver=driver)

    def unreadable(seen: tuple[UnreadableGpu, ...]) -> None:
        nonlocal found
        found = evolve(found, unreadable=seen)
        for gpu in seen:
            failed(gpu.uuid or str(gpu.index), gpu.reason)

    def fault(why: GpuFault) -> None:
        end(fault=why)

    source: NvmlMonitor | FakeMonitor
    if arguments.fake_gpus:
        source = FakeMonitor(reactor, load_fake_gpus(Path(arguments.fake_gpus)), inventory, fault)
    else:
        root = getattr(arguments, "root", "/")
        machine = Machine(
            lambda options, *observers: start_child(
                reactor, [*options, "--root", root], *observers
            ),
            partial(signs, Path(root)),
        )
        source = NvmlMonitor(
            reactor, inventory, fault, failed, on_unreadable=unreadable, machine=machine
        )
    reactor.callWhenRunning(source.start)
    reactor.addSystemEventTrigger("before", "shutdown", source.stop)
    reactor.run()
    return found
