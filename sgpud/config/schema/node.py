"""The keys that say how sgpud interacts with its node: [container], [kubelet], [http], [log]."""

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
from sgpud.config.values import (
    PLUGIN_DIRECTORY,
    POD_RESOURCES,
    ApiServerUse,
    KubeletApi,
    LogFormat,
    LogLevel,
)
from sgpud.core.sharing.rules import GKE_DRIVER, InjectionMethod

_MOUNT = (
    Key(
        "host",
        Text('absolute path, e.g. "/opt/nvidia"', absolute_path),
        doc="The file or folder on the node, as an absolute path.",
        required=True,
    ),
    Key(
        "container",
        Text('absolute path, e.g. "/usr/local/nvidia"', mount_point),
        doc="Where it is mounted in containers, as an absolute path.",
        required=True,
    ),
    Key(
        "read_only",
        Boolean(),
        default=True,
        doc="Whether it is mounted read-only.",
    ),
)
_MOUNT_WORDS = 'tables, e.g. {host = "/opt/nvidia", container = "/usr/local/nvidia"}'

CONTAINER = (
    Key(
        "method",
        choice(InjectionMethod),
        InjectionMethod.AUTO.value,
        "How GPUs are injected into containers:\n"
        '- "auto": the first of cdi, nvidia-runtime, volume-mounts and device-nodes for which the'
        " node has everything; the log says which, and why\n"
        '- "nvidia-runtime": NVIDIA\'s container runtime reads NVIDIA_VISIBLE_DEVICES\n'
        '- "volume-mounts": the same runtime, configured to read mounts instead of that variable\n'
        '- "cdi": the container runtime reads the CDI specs in /etc/cdi and /var/run/cdi\n'
        '- "device-nodes": sgpud injects the nodes in /dev itself; the driver\'s libraries come'
        " from mounts below, as on GKE\n"
        'Do not use "nvidia-runtime" with more than one resource on a node ("auto" does not): a'
        " container that requests two of them would see the GPU of one. docs/handing-over.md"
        " says what each method needs.",
    ),
    Key(
        "cdi_kind",
        Text('CDI kind, e.g. "nvidia.com/gpu"', cdi_kind),
        "nvidia.com/gpu",
        'Which CDI devices are used: those of specs on the node with this "kind". Only used by'
        ' method "cdi".',
    ),
    Key(
        "mounts",
        ListOf(Table(_MOUNT, _MOUNT_WORDS), f"list of {_MOUNT_WORDS}", 64, unique="container"),
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
        "api",
        choice(KubeletApi),
        KubeletApi.DEVICE_PLUGIN.value,
        "How the kubelet and the scheduler learn of the GPUs:\n"
        '- "device-plugin": as a number of shares per node; works with every Kubernetes\n'
        '- "dra": as a ResourceSlice with the memory and the places of each GPU, which the'
        " scheduler itself packs; needs Kubernetes 1.36 and CDI in the container runtime\n"
        "A node must never serve both: drain it before this is changed (docs/dra.md).",
        restart=True,
    ),
    Key(
        "api_server",
        choice(ApiServerUse),
        ApiServerUse.AUTO.value,
        'Whether sgpud uses the API server for more than api = "dra" needs:\n'
        '- "auto": where it has credentials and a network: the service account of its pod, the'
        " kubeconfig that [dra] kubeconfig names, or the kubelet's own. It learns the names and the"
        " ends of this node's pods when the scheduler does, writes Events on pods and the Node, and"
        " the Node's condition SharedGPUUnhealthy. docs/clusters.md lists the rights\n"
        '- "never": it learns them from the kubelet alone\n'
        "Without credentials the two are the same.",
        restart=True,
    ),
    Key(
        "fast_status",
        Boolean(),
        default=False,
        doc="Whether the Node shows a changed number of memory shares at once. The kubelet reports"
        " it up to 10 s later, and until then the scheduler binds pods by the old number, which"
        " fail on the node. sgpud patches the allocatable of its own resources, at most five times"
        " a second, once the kubelet itself counts the same. This needs credentials (api_server)"
        " and the right to patch nodes/status; for the device plugin only.",
    ),
    Key(
        "numa",
        Boolean(),
        default=False,
        doc="Whether sgpud reports the NUMA node of each share to the kubelet. With a topology"
        " manager policy other than none, the kubelet prefers shares near the container's CPUs"
        " without asking sgpud: placement no longer decides, and a request for several shares"
        ' can be refused unless [sharing] multiple is "any".',
    ),
    Key(
        "plugin_directory",
        Text("absolute path", socket_folder),
        PLUGIN_DIRECTORY,
        "The kubelet's directory for device plugins: device-plugins below its --root-dir. At most"
        f" {LONGEST_FOLDER} bytes long.",
        restart=True,
    ),
    Key(
        "pod_resources",
        Text("absolute path", socket_path),
        POD_RESOURCES,
        "The kubelet's podresources socket, from which sgpud reads which pods hold which shares."
        " Without it, sgpud only has the kubelet's checkpoint file, and notices late that a pod has"
        " ended.",
        restart=True,
    ),
)

HTTP = (
    Key(
        "listen",
        Text('endpoint, e.g. "tcp:9449:interface=127.0.0.1"', endpoint),
        "",
        "Where to serve metrics for Prometheus at /metrics, /healthz, /readyz and, for the node"
        " itself, /status: tcp:PORT:interface=ADDRESS, or tcp:PORT for all addresses of the node."
        " Empty: no port; the socket status.sock in the run directory always exists. The"
        " service of the Debian package needs /usr/libexec/sgpud/allow-http run once.",
        restart=True,
    ),
    Key(
        "expose_status",
        Boolean(),
        default=False,
        doc="Whether /status, which names pods and their processes, is served to other machines, if"
        " listen allows it. Metrics, which contain the names of pods that hold shares, always"
        " are.",
    ),
    Key(
        "hosts",
        ListOf(
            Text("host name", host_name),
            'list of host names, e.g. ["node-1.example.com"]',
            16,
        ),
        [],
        "Host names that requests may use for this node, besides its IP addresses and localhost."
        " Requests with any other Host header are refused, to prevent DNS rebinding by web pages.",
    ),
)

LOG = (
    Key(
        "level",
        choice(LogLevel),
        LogLevel.INFO.value,
        'The lowest level that is logged: "debug", "info", "warn" or "error".',
    ),
    Key(
        "format",
        choice(LogFormat),
        LogFormat.AUTO.value,
        "The format of log messages:\n"
        '- "auto": journald under systemd, text on a terminal, json otherwise\n'
        '- "text": for humans\n'
        '- "journald": entries with the fields of each message if stderr is the journal, else'
        " text with the priority prefixes of the journal\n"
        '- "json": one object per line, for log collectors',
        restart=True,
    ),
)
