"""A daemon with memory shares and credentials for a stand-in API server."""

from __future__ import annotations

from sgpud.testing.api_server import ApiServer
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN

MEMORY = "deepomatic.com/shared-gpu-gib"


def serving(node: Node, kubelet: StandInKubelet, api: ApiServer, kubelet_keys: str = "") -> Process:
    """A daemon with memory shares and the API server's kubeconfig."""
    access = api.write_kubeconfig(node.root / "kubeconfig")
    node.configure(
        resource=MEMORY,
        sharing='share_memory = "1GiB"\nplacement = "packed"',
        kubelet=kubelet_keys,
        rest=f'[dra]\nkubeconfig = "{access}"\nnode_name = "{api.node}"\n',
        factor=100,
    )
    process = node.start()
    kubelet.next_registration(WITHIN)
    kubelet.next_devices(MEMORY, WITHIN)
    return process


def start(kubelet: StandInKubelet, api: ApiServer, name: str, count: int) -> None:
    """A pod that the scheduler has bound, admitted."""
    api.core.add_pod(name, uid=f"uid-{name}")
    kubelet.admit(f"uid-{name}", "default", name, "main", {MEMORY: count})


def followed(api: ApiServer) -> None:
    """Wait until the pods are watched."""
    watches = "watch=1"
    assert api.wait(lambda: any("/pods?" in path and watches in path for _, path in api.calls))
