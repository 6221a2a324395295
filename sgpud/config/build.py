"""From checked documents to Config."""

from __future__ import annotations

from typing import Any

from sgpud.config.schema.formats import ALWAYS, twisted_endpoint
from sgpud.config.schema.kinds import ListOf, Table
from sgpud.config.schema.sections import ROOT
from sgpud.config.values import (
    ApiServerUse,
    Config,
    DeviceOrder,
    DraConfig,
    Evict,
    HttpSettings,
    KubeletApi,
    KubeletSettings,
    LogFormat,
    LogLevel,
    LogSettings,
)
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.health.xids import Remedy
from sgpud.core.limits.settings import LimitSettings, MemoryLimits, OveruseAction
from sgpud.core.sharing.rules import (
    Advertise,
    FullGuardSettings,
    GpuRule,
    HostMount,
    InjectionMethod,
    InjectionSettings,
    Multiple,
    Placement,
    ShareTerms,
    Sharing,
)
from sgpud.core.units import parse_amount, parse_duration, parse_size


def complete(document: dict[str, Any], table: Table = ROOT) -> dict[str, Any]:
    """A checked document with the default of every key that it leaves out."""
    full: dict[str, Any] = {}
    for key in table.keys:
        value = document.get(key.name, key.default)
        if isinstance(key.kind, Table):
            value = complete(value, key.kind)
        elif isinstance(key.kind, ListOf) and isinstance(key.kind.element, Table):
            value = [complete(element, key.kind.element) for element in value]
        full[key.name] = value
    return full


def build(document: dict[str, Any]) -> Config:
    """The configuration that a checked document stands for, without warnings."""
    full = complete(document)
    gpus, sharing, container = full["gpus"], full["sharing"], full["container"]
    kubelet, dra, http, log = full["kubelet"], full["dra"], full["http"], full["log"]
    return Config(
        sharing=Sharing(
            allow=tuple(gpus["allow"]),
            deny=tuple(gpus["deny"]),
            default=ShareTerms(
                sharing["resource"],
                sharing["duplication_factor"],
                parse_size(sharing["share_memory"]),
            ),
            rules=tuple(map(_rule, full["gpu"])),
            placement=Placement(sharing["placement"]),
            multiple=Multiple(sharing["multiple"]),
            numa=kubelet["numa"],
            injection=InjectionSettings(
                InjectionMethod(container["method"]),
                container["cdi_kind"],
                tuple(HostMount(**mount) for mount in container["mounts"]),
            ),
            reserve_memory=parse_size(sharing["reserve_memory"]),
            advertise=Advertise(sharing["advertise"]),
            allow_large_status=sharing["allow_large_status"],
            full_guard=sharing["full_guard"],
            guard_settings=_guard_settings(sharing),
            measure_every=parse_duration(sharing["measure_every"]),
        ),
        limits=_limits(full["limits"]),
        health=_policy(full["health"]),
        kubelet=KubeletSettings(
            KubeletApi(kubelet["api"]),
            ApiServerUse(kubelet["api_server"]),
            kubelet["fast_status"],
            kubelet["plugin_directory"],
            kubelet["pod_resources"],
        ),
        dra=DraConfig(
            dra["driver"],
            dra["kubeconfig"],
            dra["node_name"],
            dra["cdi_dir"],
            DeviceOrder(dra["order"]),
            parse_duration(dra["reorder_every"]),
            Evict(dra["evict"]),
            parse_size(dra["default_memory"]),
        ),
        http=HttpSettings(
            twisted_endpoint(http["listen"]), http["expose_status"], tuple(http["hosts"])
        ),
        log=LogSettings(LogLevel(log["level"]), LogFormat(log["format"])),
        document={**full, "gpu": [_given(rule) for rule in full["gpu"]]},
    )


def _given(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if value is not None}


def _rule(rule: dict[str, Any]) -> GpuRule:
    size = rule["share_memory"]
    memory = None if size is None else parse_size(size)
    whole = rule["memory"]
    return GpuRule(
        rule["match"],
        rule["resource"],
        rule["duplication_factor"],
        memory,
        None if whole is None else parse_size(whole) or None,
    )


def _limits(limits: dict[str, Any]) -> LimitSettings:
    pressure = limits["pressure"]
    return LimitSettings(
        MemoryLimits(limits["memory"]),
        float(limits["limit_factor"]),
        parse_size(limits["memory_context"]),
        OveruseAction(limits["overuse"]),
        limits["dry_run"],
        parse_size(limits["tolerance"]),
        parse_duration(limits["over_for"]),
        None if pressure == ALWAYS else parse_amount(pressure),
        tuple(limits["spare"]),
        parse_duration(limits["cool_down"]),
    )


def _policy(health: dict[str, Any]) -> HealthPolicy:
    return HealthPolicy(
        hold_down=parse_duration(health["hold_down"]),
        ignore=tuple(health["ignore"]),
        restart=tuple(health["restart"]),
        reset=tuple(health["reset"]),
        reboot=tuple(health["reboot"]),
        uncorrected_ecc=Remedy(health["uncorrected_ecc"]),
        row_remap_pending=Remedy(health["row_remap_pending"]),
        row_remap_failure=Remedy(health["row_remap_failure"]),
        trust_last_known=health["trust_last_known"],
        trust_for=parse_duration(health["trust_for"]),
    )


def _guard_settings(sharing: dict[str, Any]) -> FullGuardSettings:
    resume = sharing["memory_resume"]
    return FullGuardSettings(
        parse_amount(sharing["memory_headroom"]),
        parse_amount(resume) if resume else None,
        parse_duration(sharing["resume_after"]),
        parse_duration(sharing["settle"]),
        parse_size(sharing["expected_memory"]),
    )
