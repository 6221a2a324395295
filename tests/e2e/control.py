"""A control plane inside of a node: etcd, the API server, its controllers and the scheduler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from attrs import Factory, define

from tests.e2e.node import ADDRESS, Node
from tests.e2e.waiting import DidNotHappenError, until

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SERVER = f"https://{ADDRESS}:6443"
SERVICES = "198.51.100.0/24"
"""Where the services' addresses are from: RFC 5737, never routed, and nothing here serves them."""
ETCD = "http://127.0.0.1:2379"
USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": ("system:node:e2e", "system:nodes"),
}
"""The user and the group that each client is. Its token is its key here: nobody else hears it."""


@define
class ControlPlane:
    """Its processes end with the node; their files are in the node's folder and in its tmpfs."""

    node: Node
    openssl: str
    kubectl_program: str
    _processes: list[subprocess.Popen[bytes]] = Factory(list)

    @property
    def _home(self) -> Path:
        return self.node.root / "control"

    def kubeconfig(self, user: str) -> Path:
        """The file with which one of the USERS finds and trusts the server."""
        return self._home / f"{user}.kubeconfig"

    def start(self) -> None:
        """Start all of it; returns when the server is ready."""
        self._home.mkdir()
        self._write_files()
        self._run("etcd", f"--config-file={self._home / 'etcd.json'}")
        self._run("kube-apiserver", *self._api_server())
        # The server makes its certificate when it starts, and its clients read it when they do.
        until(self._ready, "the API server is ready", 90)
        controllers = (
            f"--kubeconfig={self.kubeconfig('controllers')}",
            f"--root-ca-file={self._certificate}",
            f"--service-account-private-key-file={self._key}",
            "--use-service-account-credentials",
            "--leader-elect=false",
        )
        self._run("kube-controller-manager", *controllers)
        scheduler = (f"--kubeconfig={self.kubeconfig('scheduler')}", "--leader-elect=false")
        self._run("kube-scheduler", *scheduler)
        ask = ("get", "serviceaccount", "default")
        until(lambda: self.call(*ask).returncode == 0, "the controllers work", 60)

    def wait(self) -> None:
        """Wait for the ends of its processes, once the node has ended."""
        for process in self._processes:
            process.wait(20)

    def call(self, *words: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """A call of kubectl as the administrator."""
        return self.node.run(*self.kubectl_command(*words), seconds=seconds)

    def kubectl_command(self, *words: str) -> Sequence[str]:
        """The command line of such a call, as the node takes it."""
        config = f"--kubeconfig={self.kubeconfig('admin')}"
        return (self.kubectl_program, config, f"--cache-dir={self._home / 'cache'}", *words)

    @property
    def _key(self) -> Path:
        return self._home / "accounts.key"

    @property
    def _certificate(self) -> Path:
        return self._home / "apiserver.crt"

    def _write_files(self) -> None:
        (self._home / "etcd.json").write_text(json.dumps(_ETCD))
        command = [self.openssl, "genrsa", "-out", str(self._key), "2048"]
        subprocess.run(command, capture_output=True, timeout=30, check=True)
        rows = (f'{key},{user},{user},"{group}"' for key, (user, group) in USERS.items())
        (self._home / "tokens.csv").write_text("\n".join(rows) + "\n")
        for user in USERS:
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "e2e",
                "clusters": [
                    {
                        "name": "e2e",
                        "cluster": {
                            "server": SERVER,
                            "certificate-authority": str(self._certificate),
                        },
                    }
                ],
                "users": [{"name": user, "user": {"token": user}}],
                "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": user}}],
            }
            self.kubeconfig(user).write_text(json.dumps(config))

    def _api_server(self) -> Sequence[str]:
        return (
            f"--etcd-servers={ETCD}",
            f"--advertise-address={ADDRESS}",
            f"--bind-address={ADDRESS}",
            f"--cert-dir={self._home}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--token-auth-file={self._home / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            # The overlay gke asks for it, as GKE's own server has it.
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = self.node.inside(str(self.node.assets.folder / program), *arguments)
        with (self.node.root / f"{program}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def _ready(self) -> bool:
        ended = [process.args for process in self._processes if process.poll() is not None]
        if ended:
            message = f"it ended by itself: {ended}"
            raise DidNotHappenError(message)
        return self._certificate.exists() and self.call("get", "--raw=/readyz").stdout == "ok"


_ETCD = {
    "name": "e2e",
    "data-dir": "/var/lib/etcd",
    "listen-client-urls": ETCD,
    "advertise-client-urls": ETCD,
    "listen-peer-urls": "http://127.0.0.1:2380",
    "initial-advertise-peer-urls": "http://127.0.0.1:2380",
    "initial-cluster": "e2e=http://127.0.0.1:2380",
    # Nothing of it is to outlive the test.
    "unsafe-no-fsync": True,
}
