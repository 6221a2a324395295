"""The keys that say how sgpud deals with its node: [container], [kubelet], [http], [log]."""

from __future__ import annotations

from sgpud.config.schema.formats import (
    LONGEST_FOLDER,
    absolute_path,
    cdi_kind,
    endpoint,
    host_name,
    mount_point,
    socket_folder,
    socket_path,
)
from sgpud.config.schema.kinds import Boolean, Key, ListOf, Table, Text, choice
from sgpud.config.values import PLUGIN_DIRECTORY, POD_RESOURCES, LogFormat, LogLevel
from sgpud.core.sharing.rules import GKE_DRIVER, InjectionMethod

_MOUNT = (
    Key(
        "host",
        Text('an absolute path in quotes such as "/opt/nvidia"', absolute_path),
        doc="The file or folder on the node, as an absolute path.",
        required=True,
    ),
    Key(
        "container",
        Text('an absolute path in quotes such as "/usr/local/nvidia"', mount_point),
        doc="Where containers see it, as an absolute path.",
        required=True,
    ),
    Key(
        "read_only",
        Boolean(),
        default=True,
        doc="Whether containers can only read it.",
    ),
)
_MOUNT_WORDS = 'tables such as {host = "/opt/nvidia", container = "/usr/local/nvidia"}'

CONTAINER = (
    Key(
        "method",
        choice(InjectionMethod),
        InjectionMethod.AUTO.value,
        "How a container is given its GPU:\n"
        '- "auto": the first of cdi, nvidia-runtime, volume-mounts and device-nodes for which the'
        " node has everything; the log says which, and why\n"
        '- "nvidia-runtime": NVIDIA\'s container runtime reads NVIDIA_VISIBLE_DEVICES\n'
        '- "volume-mounts": the same runtime, set up to read mounts in place of that variable\n'
        '- "cdi": the container runtime reads the CDI specs in /etc/cdi and /var/run/cdi\n'
        '- "device-nodes": sgpud hands out the nodes in /dev itself, and the driver\'s libraries'
        " come from mounts below; GKE is like that\n"
        'With more than one resource on a node "nvidia-runtime" is wrong, and "auto" never takes'
        " it: a container that asks for two of them would see the GPU of one. docs/handing-over.md"
        " says what each method needs.",
    ),
    Key(
        "cdi_kind",
        Text('a CDI kind in quotes such as "nvidia.com/gpu"', cdi_kind),
        "nvidia.com/gpu",
        'Which CDI devices are used: those of specs on the node whose field "kind" is this one.'
        ' Only the method "cdi" looks at it.',
    ),
    Key(
        "mounts",
        ListOf(Table(_MOUNT, _MOUNT_WORDS), f"a list of {_MOUNT_WORDS}", 64, unique="container"),
        [
            {
                "host": GKE_DRIVER.host,
                "container": GKE_DRIVER.container,
                "read_only": GKE_DRIVER.read_only,
            },
        ],
        "Files and folders of the node that each container with a share sees as well: the"
        ' driver\'s libraries. Only the method "device-nodes" looks at it. A mount whose host path'
        " does not exist is left out, so that the default, where GKE keeps the driver, does no"
        ' harm elsewhere. "auto" takes device-nodes only where one of them exists; write [] if the'
        " images bring the driver's libraries themselves.",
    ),
)

KUBELET = (
    Key(
        "numa",
        Boolean(),
        default=False,
        doc="Whether the kubelet is told which NUMA node each share belongs to. With a topology"
        " manager policy other than none it then takes shares near the container's CPUs first,"
        " without asking sgpud which: placement no longer decides, and a container that asks for"
        ' several shares can be refused unless [sharing] multiple is "any".',
    ),
    Key(
        "plugin_directory",
        Text("an absolute path in quotes", socket_folder),
        PLUGIN_DIRECTORY,
        "The folder in which the kubelet finds device plugins: device-plugins below the kubelet's"
        f" --root-dir. At most {LONGEST_FOLDER} bytes long.",
        restart=True,
    ),
    Key(
        "pod_resources",
        Text("an absolute path in quotes", socket_path),
        POD_RESOURCES,
        "The kubelet's podresources socket, where sgpud asks which pods hold which shares. Where"
        " there is none, sgpud has the kubelet's checkpoint file alone, and learns late that a"
        " pod has ended.",
        restart=True,
    ),
)

HTTP = (
    Key(
        "listen",
        Text('an endpoint in quotes such as "tcp:9449:interface=127.0.0.1"', endpoint),
        "",
        "Where metrics for Prometheus are served, at /metrics, beside /healthz, /readyz and, to the"
        " node itself, /status: tcp:PORT:interface=ADDRESS, or tcp:PORT for every address of the"
        " node. Empty opens no port; the socket status.sock in the run directory is there anyway.",
        restart=True,
    ),
    Key(
        "expose_status",
        Boolean(),
        default=False,
        doc="Whether /status, which names pods and their processes, is served to other machines too"
        " where listen lets them come. The metrics, which have the names of the pods that hold"
        " shares, are in any case.",
    ),
    Key(
        "hosts",
        ListOf(
            Text("a host name in quotes", host_name),
            'a list of names such as ["node-1.example.com"]',
            16,
        ),
        [],
        "Names that a request may call this node by, beside its IP addresses and localhost. A"
        " request under any other name is refused, since a page of the web that a browser shows"
        " could have made it.",
    ),
)

LOG = (
    Key(
        "level",
        choice(LogLevel),
        LogLevel.INFO.value,
        'The least severe messages that are written: "debug", "info", "warn" or "error".',
    ),
    Key(
        "format",
        choice(LogFormat),
        LogFormat.AUTO.value,
        "How messages are written:\n"
        '- "auto": journald under systemd, text on a terminal, json otherwise\n'
        '- "text": for people\n'
        '- "journald": entries with the fields of each message, where stderr is the journal;'
        " text with the priorities that the journal reads where it is not\n"
        '- "json": one object per line, for log collectors',
        restart=True,
    ),
)
