"""The command: reads the node, checks it, and gives the findings as a document."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sgpud.cli import offline
from sgpud.cli.doctor.check_daemon import (
    check_cgroup,
    check_cluster,
    check_configuration,
    check_daemon,
    check_healths,
    check_http,
    check_memory,
    check_pools,
)
from sgpud.cli.doctor.check_dra import check_dra
from sgpud.cli.doctor.check_driver import check_driver, check_links, check_nodes, check_versions
from sgpud.cli.doctor.check_injection import check_method, check_runtime, check_specs
from sgpud.cli.doctor.check_kubelet import (
    check_checkpoint,
    check_directory,
    check_order,
    check_pod_resources,
    check_rivals,
)
from sgpud.cli.doctor.facts import (
    ConfigurationFacts,
    DeviceFacts,
    DraFacts,
    DriverFacts,
    Finding,
    NodeFacts,
    Severity,
)
from sgpud.cli.doctor.read_driver import brings_libcuda, kernel_version, libraries, links_missing
from sgpud.cli.doctor.read_kubelet import cgroups, kubelet_facts
from sgpud.cli.doctor.read_runtime import runtime_facts, spec_versions
from sgpud.cli.doctor.read_units import has_network
from sgpud.config.load import load
from sgpud.config.problems import ConfigError
from sgpud.config.values import Config, KubeletApi
from sgpud.core.allocation.injection import NodeHost, choose
from sgpud.core.sharing.rules import Sharing
from sgpud.gpus.cdi import FOLDERS, Specs, read_specs
from sgpud.gpus.container_runtime import cdi_folders
from sgpud.gpus.host import look
from sgpud.options import overrides
from sgpud.serve.control.client import ControlError

CHECKS: tuple[Callable[[NodeFacts], Iterator[Finding]], ...] = (
    check_configuration,
    check_driver,
    check_versions,
    check_nodes,
    check_links,
    check_method,
    check_runtime,
    check_specs,
    check_directory,
    check_order,
    check_pod_resources,
    check_checkpoint,
    check_rivals,
    check_dra,
    check_memory,
    check_cgroup,
    check_daemon,
    check_http,
    check_cluster,
    check_pools,
    check_healths,
)
EXIT: Mapping[Severity, int] = {
    Severity.GOOD: 0,
    Severity.NOTE: 0,
    Severity.WARNING: 3,
    Severity.ERROR: 4,
}
"""The exit status by the worst finding."""


def examine(
    arguments: argparse.Namespace, file: str, ask: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """The findings about this node, as a document. `ask` gives the running daemon's status.

    Nothing is changed, and no device node is opened but by NVML.
    """
    findings = findings_of(facts_of(arguments, file, offline.read_gpus(arguments), ask))
    worst = max((one.severity for one in findings), default=Severity.GOOD)
    return {
        "worst": worst.name.lower(),
        "status": EXIT[worst],
        "findings": [
            {
                "check": one.check,
                "severity": one.severity.name.lower(),
                "what": one.what,
                "means": one.means,
                "todo": one.todo,
            }
            for one in findings
        ],
    }


def findings_of(facts: NodeFacts) -> list[Finding]:
    """What every check finds, in their order."""
    return [finding for check in CHECKS for finding in check(facts)]


def facts_of(
    arguments: argparse.Namespace,
    file: str,
    found: offline.FoundGpus,
    ask: Callable[[], Mapping[str, Any]],
) -> NodeFacts:
    """What is known of this node. `found`: its GPUs."""
    root = Path(arguments.root)
    config, configuration = _configuration(arguments, file)
    view, silence = _daemon(ask)
    driver = _driver(root, found)
    return NodeFacts(
        configuration=configuration,
        driver=driver,
        devices=_devices(root, config.sharing, driver),
        runtime=runtime_facts(root),
        kubelet=kubelet_facts(root, config.kubelet),
        dra=_dra(config, root),
        cgroup=cgroups(root),
        network=has_network(root),
        view=view,
        silence=silence,
    )


def _configuration(arguments: argparse.Namespace, file: str) -> tuple[Config, ConfigurationFacts]:
    """The configuration, the defaults where the file is bad, and what is wrong with it."""
    given = overrides(arguments)
    try:
        config = load(file, given)
    except ConfigError as error:
        told = [(str(problem), problem.warning) for problem in error.problems]
        errors = tuple(text for text, warning in told if not warning)
        warnings = tuple(text for text, warning in told if warning)
        return Config(), ConfigurationFacts(file, errors, warnings)
    warnings = tuple(map(str, config.warnings))
    return config, ConfigurationFacts(
        file, (), warnings, config.sharing, config.limits, config.http.listen
    )


def _dra(config: Config, root: Path) -> DraFacts:
    if config.kubelet.api is not KubeletApi.DRA:
        return DraFacts()
    from sgpud.cli.doctor.read_dra import dra_facts  # noqa: PLC0415 - TLS

    return dra_facts(config, os.environ, root)


def _daemon(ask: Callable[[], Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, str]:
    try:
        return ask(), ""
    except ControlError as error:
        return None, str(error)


def _driver(root: Path, found: offline.FoundGpus) -> DriverFacts:
    fault = found.fault
    return DriverFacts(
        kernel=kernel_version(root),
        nvml="" if any(gpu.fake for gpu in found.gpus) else found.driver,
        libraries=libraries(root),
        fault=f"{fault.kind.value}: {fault.detail}" if fault else "",
        advice=fault.advice if fault else "",
        errors=found.errors,
        gpus=found.gpus,
    )


def _named(host: NodeHost, specs: Specs) -> dict[str, int]:
    """How many GPUs each spec names, by its path."""
    used = [access.cdi.partition("=")[2] for access in host.access.values() if access.cdi]
    found = dict.fromkeys((device.spec for device in specs.devices.values()), 0)
    for name in used:
        found[specs.devices[name].spec] += 1
    return found


def _devices(root: Path, sharing: Sharing, driver: DriverFacts) -> DeviceFacts:
    injection = sharing.injection
    host: NodeHost = look(root, driver.real, injection.cdi_kind, injection.mounts)
    shared = [gpu for gpu in driver.gpus if sharing.allows(gpu)]
    specs = read_specs(root, injection.cdi_kind, cdi_folders(root) or FOLDERS)
    return DeviceFacts(
        host,
        choose(injection, host, shared, several=len(sharing.resources) > 1),
        links_missing(root, driver.real),
        spec_versions(root, specs),
        _named(host, specs),
        tuple(
            f"both {one} and {other} define {specs.kind}={name}"
            for name, (one, other) in sorted(specs.conflicts.items())
        ),
        specs.unreadable,
        specs.unknown,
        any(brings_libcuda(root, mount.host) for mount in host.mounts),
    )
