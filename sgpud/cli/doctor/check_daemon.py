"""Checks of sgpud itself: its configuration, the running daemon, cgroups."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from sgpud.cli.doctor.facts import Finding, NodeFacts, Severity
from sgpud.core.limits.enforcement import Enforcement, EnforcementKind, Handing, by_toolkit
from sgpud.core.registration.events import RegistrationPhase
from sgpud.core.sharing.rules import Sharing
from sgpud.core.text import several
from sgpud.serve.http.server import ALLOW_HTTP, NO_HTTP


def check_configuration(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the configuration file is valid."""
    found = facts.configuration
    for error in found.errors:
        yield Finding(
            "configuration",
            Severity.ERROR,
            error,
            "sgpud does not use this file: it runs on the last good one, or does not start (78).",
            "Correct it, see `sgpud check-config`, and `sgpud reload`.",
        )
    for warning in found.warnings:
        yield Finding(
            "configuration",
            Severity.WARNING,
            warning,
            "It is valid, but probably not intended.",
            "Review it.",
        )
    if not found.errors and not found.warnings:
        yield Finding("configuration", Severity.GOOD, f"{found.file} is valid")


_LIMITING = {EnforcementKind.TOOLKIT, EnforcementKind.DMEM, EnforcementKind.MISC}


def check_memory(facts: NodeFacts) -> Iterator[Finding]:
    """Whether anything limits the memory use on shared GPUs."""
    sharing = facts.configuration.sharing
    for resource in sharing.unguarded(facts.driver.gpus) if sharing else ():
        yield Finding(
            "memory",
            Severity.WARNING,
            f"nothing limits how much GPU memory the pods of {resource} use together",
            "Its shares promise no memory: pods are scheduled on a full GPU, and fail there.",
            'Set [sharing] share_memory, e.g. "1GiB", or full_guard = true.',
        )
    yield from _limits(facts) if sharing else ()


def _limits(facts: NodeFacts) -> Iterator[Finding]:
    """What enforces the memory of memory shares, for all GPUs of one finding together."""
    configuration, devices = facts.configuration, facts.devices
    handing = Handing(configuration.limits, facts.driver.version, devices.host, devices.chosen)
    sharing = configuration.sharing or Sharing()
    found: dict[Enforcement, list[str]] = {}
    for gpu in facts.driver.real:
        terms = sharing.terms(gpu)
        if terms and sharing.partition(gpu, terms).size:
            found.setdefault(by_toolkit(handing, gpu), []).append(gpu.uuid)
    if facts.view:
        found = _told(facts.view, {uuid for uuids in found.values() for uuid in uuids})
    for one, gpus in found.items():
        if one.kind in _LIMITING:
            what = f"memory limits apply on {several(len(gpus), 'GPU')}: {one.reason}"
            yield Finding("memory", Severity.GOOD, what)
            continue
        yield Finding(
            "memory",
            Severity.NOTE,
            f"no memory limits on {', '.join(gpus)}: {one.reason}",
            "A container can use more memory than its shares represent. sgpud reports it while the"
            " GPU is nearly full, unless [limits] overuse is off.",
            one.remedy,
        )


def _told(view: Mapping[str, Any], uuids: Container[str]) -> dict[Enforcement, list[str]]:
    """What the daemon says of these GPUs: it has tried what the node alone does not show."""
    found: dict[Enforcement, list[str]] = {}
    for gpu in view["gpus"]:
        if gpu["uuid"] in uuids:
            reason, remedy = gpu["enforcement_reason"], gpu["enforcement_remedy"]
            one = Enforcement(EnforcementKind(gpu["enforcement"]), reason, remedy)
            found.setdefault(one, []).append(gpu["uuid"])
    return found


def check_cgroup(facts: NodeFacts) -> Iterator[Finding]:
    """The version of cgroups."""
    if facts.cgroup == "v2":
        yield Finding("cgroup", Severity.GOOD, "version 2")
        return
    what = f"version 1 ({facts.cgroup})" if facts.cgroup else "none is mounted at /sys/fs/cgroup"
    means = (
        "Kubernetes has cgroup version 1 in maintenance, and from 1.35 on the kubelet does not"
        " start on it unless failCgroupV1 is false."
        if facts.cgroup
        else "sgpud cannot determine in which container a GPU process runs."
    )
    todo = (
        "Boot with systemd.unified_cgroup_hierarchy=1."
        if facts.cgroup
        else "In a container mount the host's /sys/fs/cgroup, read-only."
    )
    yield Finding("cgroup", Severity.WARNING, what, means, todo)


def check_daemon(facts: NodeFacts) -> Iterator[Finding]:
    """The state of the running daemon, if there is one."""
    view = facts.view
    if view is None:
        yield Finding(
            "daemon",
            Severity.NOTE,
            facts.silence,
            "Only the node was checked.",
            "Start it with `systemctl start sgpud` once the other findings are resolved.",
        )
        return
    yield Finding("daemon", Severity.GOOD, f"sgpud {view['version']} runs: {view['serving']}")
    configuration = view["configuration"]
    if configuration["problems"]:
        yield Finding(
            "daemon",
            Severity.ERROR,
            f"the configuration in use is {configuration['in_use']}, not the current file",
            "Changes to the file have no effect yet.",
            "Correct the file and `sgpud reload`.",
        )
    if view["probe"]:
        yield Finding(
            "daemon",
            Severity.ERROR,
            view["probe"],
            "Its data about the GPUs is stale, and free shares are withheld.",
            "See the findings about the driver.",
        )
    for name in view["unknown"]:
        yield Finding(
            "daemon",
            Severity.ERROR,
            f"it does not know the {name} of this node yet",
            "Nothing is advertised until it does.",
            "Its log says what it waits for (journalctl -u sgpud).",
        )
    for note in view["notes"]:
        if note.startswith(NO_HTTP):
            continue  # see check_http
        yield Finding("daemon", Severity.WARNING, note, "", "See docs/configuration.md.")
    for part in view["dead"]:
        yield Finding(
            "daemon",
            Severity.ERROR,
            f"its {part} has failed",
            "The last plan stays in effect, but changes are not processed.",
            "See its log (journalctl -u sgpud) and restart it: `systemctl restart sgpud`.",
        )
    if view["unsaved"]:
        yield Finding(
            "daemon",
            Severity.ERROR,
            f"its state is not saved: {view['unsaved']}",
            "A restart would lose cordons, the health of GPUs and the last good configuration.",
            "Free disk space, or correct the owner and the mode of its state directory.",
        )
    if view["holders"]:
        yield Finding(
            "daemon",
            Severity.WARNING,
            view["holders"],
            "Holders may be stale: no share is removed, and few are freed.",
            "See the findings about checkpoint and podresources.",
        )


def check_http(facts: NodeFacts) -> Iterator[Finding]:
    """Whether `[http] listen` can be served, under the package's unit too."""
    notes = (facts.view or {}).get("notes", ())
    said = [note for note in notes if note.startswith(NO_HTTP)]
    listen = facts.configuration.listen
    shut = bool(listen) and not listen.startswith("unix:") and not facts.network
    if said or shut:
        yield Finding(
            "http",
            Severity.WARNING,
            said[0] if said else f"{NO_HTTP} at {listen}: sgpud.service has no network",
            "Nobody can read the metrics and the page.",
            f"Run {ALLOW_HTTP}: it gives the service the network of the node, and restarts it."
            if shut
            else "Set [http] listen to an address of this node and a free port; sgpud retries.",
        )


def check_cluster(facts: NodeFacts) -> Iterator[Finding]:
    """What the daemon cannot do at the API server, where it uses that."""
    for cluster in (facts.view or {}).get("cluster", ()):
        for problem in cluster["problems"]:
            yield Finding(
                "daemon",
                Severity.WARNING,
                f"API server: {problem}",
                "sgpud works without it; docs/clusters.md says what is missing.",
                "Grant the right that it names (docs/clusters.md), or set [kubelet] api_server ="
                ' "never".',
            )


def check_pools(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the kubelet follows every list of the daemon."""
    for pool in (facts.view or {}).get("pools", ()):
        if pool["dropped"] or facts.view is None or facts.view["serving"] != "serving":
            continue
        if pool["registration"] == RegistrationPhase.LIVE.value:
            allocatable = sum(gpu["allocatable"] for gpu in pool["gpus"])
            what = f"{pool['resource']}: {several(allocatable, 'share')} allocatable"
            yield Finding("registration", Severity.GOOD, what)
            continue
        if pool["registration"] == RegistrationPhase.SUPERSEDED.value:
            yield Finding(
                "registration",
                Severity.ERROR,
                f"{pool['resource']}: {pool['problem']}",
                "The kubelet asks that plugin, and the node shows its devices instead of sgpud's.",
                "Remove the other device plugin from this node, or give sgpud's shares another name"
                " ([sharing] resource). sgpud registers again within 3 s after it ends.",
            )
            continue
        problem = f": {pool['problem']}" if pool["problem"] else ""
        yield Finding(
            "registration",
            Severity.ERROR,
            f"{pool['resource']} is not registered ({pool['registration']}{problem})",
            "The node shows none of its shares, and pods that request them stay Pending.",
            "See the findings about the kubelet; sgpud retries.",
        )


def check_healths(facts: NodeFacts) -> Iterator[Finding]:
    """The GPUs that are not healthy, according to the daemon."""
    for gpu in (facts.view or {}).get("healths", ()):
        if gpu["cordoned"]:
            yield Finding(
                "health",
                Severity.NOTE,
                f"{gpu['uuid']} is cordoned",
                "Its free shares are withheld.",
                f"`sgpud uncordon {gpu['uuid']}` when it may be used again.",
            )
        if gpu["health"] != "healthy":
            bad = gpu["health"] == "unhealthy"
            yield Finding(
                "health",
                Severity.ERROR if bad else Severity.WARNING,
                f"{gpu['uuid']} is {gpu['health']}: {gpu['reason']}",
                "All its shares are Unhealthy." if bad else "Its free shares are withheld.",
                gpu["advice"] or "It recovers once its probes pass.",
            )
