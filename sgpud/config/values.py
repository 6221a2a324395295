"""A configuration that has been checked: frozen values for the rest of sgpud."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import field, frozen

from sgpud.config.problems import Problem
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.limits.settings import LimitSettings
from sgpud.core.sharing.rules import Sharing

PLUGIN_DIRECTORY = "/var/lib/kubelet/device-plugins"
DRIVER = "gpu.deepomatic.com"
CDI_DIRECTORY = "/var/run/cdi"
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


class KubeletApi(Enum):
    """How the kubelet and the scheduler learn of the GPUs."""

    DEVICE_PLUGIN = "device-plugin"
    """A number of shares per node."""
    DRA = "dra"
    """Dynamic Resource Allocation: each GPU with its memory and its places."""


class DeviceOrder(Enum):
    """Which GPU the scheduler tries first."""

    PLACEMENT = "placement"
    """As `[sharing] placement` says."""
    PACKED = "packed"
    """The one with the least room."""
    SPREAD = "spread"
    """The one with the most."""
    FIXED = "fixed"
    """By index."""


class Evict(Enum):
    """Which pods are evicted from a GPU."""

    NEVER = "never"
    UNHEALTHY = "unhealthy"
    """Those with a claim on an unhealthy GPU."""


class ApiServerUse(Enum):
    """Whether the API server is used for more than DRA needs."""

    AUTO = "auto"
    """Where there are credentials."""
    NEVER = "never"


@frozen
class KubeletSettings:
    """Where the kubelet is, and what is spoken with it."""

    api: KubeletApi = KubeletApi.DEVICE_PLUGIN
    api_server: ApiServerUse = ApiServerUse.AUTO
    fast_status: bool = False
    """Whether the Node shows a changed number of memory shares before the kubelet reports it."""
    plugin_directory: str = PLUGIN_DIRECTORY
    pod_resources: str = POD_RESOURCES
    """Path of the podresources socket."""


@frozen
class DraConfig:
    """The `[dra]` section: Dynamic Resource Allocation."""

    driver: str = DRIVER
    kubeconfig: str = ""
    """Empty: the service account of the pod, else the kubelet's own file."""
    node_name: str = ""
    """Empty: NODE_NAME, else the name in the certificate, else the host's."""
    cdi_dir: str = CDI_DIRECTORY
    order: DeviceOrder = DeviceOrder.PLACEMENT
    reorder_every: float = 10.0
    """Seconds between two writes that change the order of the devices only."""
    evict: Evict = Evict.NEVER
    default_memory: int = 0
    """Bytes that a request consumes that names no amount."""


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
    limits: LimitSettings = field(factory=LimitSettings)
    health: HealthPolicy = field(factory=HealthPolicy)
    kubelet: KubeletSettings = field(factory=KubeletSettings)
    dra: DraConfig = field(factory=DraConfig)
    http: HttpSettings = field(factory=HttpSettings)
    log: LogSettings = field(factory=LogSettings)
    warnings: tuple[Problem, ...] = field(default=(), eq=False)
    """What is allowed but unwise in the text that this was read from."""
    document: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)
    """The document that this was built from, with every key; empty for the defaults."""
