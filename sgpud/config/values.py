"""A configuration that has been checked: frozen values for the rest of sgpud."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import field, frozen

from sgpud.config.problems import Problem
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.sharing.rules import Sharing

PLUGIN_DIRECTORY = "/var/lib/kubelet/device-plugins"
POD_RESOURCES = "/var/lib/kubelet/pod-resources/kubelet.sock"


class LogLevel(Enum):
    """The least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class LogFormat(Enum):
    """How log lines are written."""

    AUTO = "auto"
    """journald under systemd, text on a terminal, otherwise json."""
    TEXT = "text"
    JOURNALD = "journald"
    JSON = "json"


@frozen
class KubeletSettings:
    """Where the kubelet is."""

    plugin_directory: str = PLUGIN_DIRECTORY
    pod_resources: str = POD_RESOURCES
    """Path of the podresources socket."""


@frozen
class LogSettings:
    """What sgpud writes about itself."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO


@frozen
class HttpSettings:
    """What can be read over HTTP."""

    listen: str = ""
    """A Twisted endpoint string, or empty for no server."""
    expose_status: bool = False
    """Whether other machines may read the status, which names pods."""
    hosts: tuple[str, ...] = ()
    """Names of the node that a request may use, beside IP addresses and localhost."""


@frozen
class Config:
    """The whole configuration. Two that say the same are equal, whatever warnings they carry."""

    sharing: Sharing = field(factory=Sharing)
    health: HealthPolicy = field(factory=HealthPolicy)
    kubelet: KubeletSettings = field(factory=KubeletSettings)
    http: HttpSettings = field(factory=HttpSettings)
    log: LogSettings = field(factory=LogSettings)
    warnings: tuple[Problem, ...] = field(default=(), eq=False)
    """What is allowed but unwise in the text that this was read from."""
    document: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)
    """The document that this was built from, with every key; empty for the defaults."""
