"""The keys of [dra]: Dynamic Resource Allocation."""

from __future__ import annotations

from sgpud.config.schema.formats import (
    absolute_path,
    driver_name,
    duration,
    node_name,
    path_or_nothing,
    size,
)
from sgpud.config.schema.kinds import Key, Text, choice
from sgpud.config.values import CDI_DIRECTORY, DRIVER, DeviceOrder, Evict

DRA = (
    Key(
        "driver",
        Text('name, e.g. "gpu.example.com"', driver_name),
        DRIVER,
        "The name of the DRA driver, by which DeviceClasses select. Two instances of sgpud on one"
        " node need different names and different GPUs.",
        restart=True,
    ),
    Key(
        "kubeconfig",
        Text('absolute path, or ""', path_or_nothing),
        "",
        "The kubeconfig for the API server. Empty: the service account, in a pod; otherwise the"
        " kubelet's own (/etc/kubernetes/kubelet.conf, /var/lib/kubelet/kubeconfig or that of k3s)."
        " The file is read again whenever it, or a file that it names, changes. [kubelet]"
        " api_server uses it too.",
        restart=True,
    ),
    Key(
        "node_name",
        Text('name, or ""', node_name),
        "",
        "The name of this Node. Empty: the variable NODE_NAME, else the name in the certificate of"
        " the kubeconfig, else the host's name.",
        restart=True,
    ),
    Key(
        "cdi_dir",
        Text("absolute path", absolute_path),
        CDI_DIRECTORY,
        "Where the CDI specs of prepared claims are written: a folder in which the container"
        " runtime looks for specs.",
        restart=True,
    ),
    Key(
        "order",
        choice(DeviceOrder),
        DeviceOrder.PLACEMENT.value,
        "In which order the scheduler tries the GPUs of this node:\n"
        '- "placement": as [sharing] placement says; for memory shares "packed", as the device'
        " plugin grants them\n"
        '- "packed": the GPU with the least room first, so that first fit is best fit\n'
        '- "spread": the GPU with the most room first\n'
        '- "fixed": by index\n'
        "Each new order is a write to the API server; reorder_every limits how often.",
    ),
    Key(
        "reorder_every",
        Text('duration, e.g. "10s"', duration(1.0, 3600.0)),
        "10s",
        "The shortest time between two new orders of the GPUs, if nothing else has changed.",
    ),
    Key(
        "evict",
        choice(Evict),
        Evict.NEVER.value,
        'Whether pods are evicted from an unhealthy GPU: "never", or "unhealthy". Pods with a claim'
        " are evicted by Kubernetes, because of a NoExecute taint; pods with limits by sgpud,"
        " through the Eviction API, which honours PodDisruptionBudgets. The latter needs [kubelet]"
        " api_server and the right to create pods/eviction; `sgpud status` names the pods that"
        " cannot be evicted.",
    ),
    Key(
        "default_memory",
        Text('size, e.g. "4GiB"', size()),
        "0",
        "The memory reserved for a pod that requests no amount, such as every pod with limits. With"
        " 0 such a pod takes only a place; with [sharing] share_memory it takes one such share.",
    ),
)
