"""How sgpud reaches the API server, and as whom: a service account, or a kubeconfig.

Whatever is read is read again when a file has changed, or when the server says 401: tokens expire
within the hour, and the kubelet's certificate rotates.
"""

from __future__ import annotations

import base64
import binascii
import json
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, frozen

from sgpud.core.errors import SgpudError
from sgpud.files import identity, read_regular

ACCOUNT = "var/run/secrets/kubernetes.io/serviceaccount"
KUBELET_FILES = (
    "etc/kubernetes/kubelet.conf",
    "var/lib/kubelet/kubeconfig",
    "var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "var/lib/rancher/rke2/agent/kubelet.kubeconfig",
)
"""Where kubeadm, EKS, k3s and RKE2 keep the kubelet's kubeconfig."""
LARGEST = 1 << 20
"""Bytes of a file."""
EXEC_WITHIN = 20.0
"""Seconds for a credential plugin."""
EXPIRES_SOON = 60.0
"""Seconds before its end at which a credential is fetched again."""
EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class CredentialsError(SgpudError):
    """No way to reach the API server, or none as somebody."""


@frozen
class Access:
    """Where the API server is, how it proves who it is, and how sgpud does."""

    host: str
    port: int
    ca: bytes = b""
    """PEM; empty: the system's authorities."""
    certificate: bytes = b""
    """PEM, the key beside it or in it; empty: none."""
    key: bytes = b""
    token: str = ""
    name: str = ""
    """What the server's certificate is for, where that is not the host."""
    prefix: str = ""
    """A path in front of every path."""
    plain: bool = False
    """HTTP, to this machine only."""

    @property
    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def netloc(self) -> str:
        """Host and port as a URL has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def has_network() -> bool:
    """Whether this process may use a network: the packaged service may not."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


class Credentials:
    """Reads and keeps the credentials. Blocks: to be called in a thread. Any number of threads."""

    def __init__(
        self,
        kubeconfig: str,
        environment: Mapping[str, str],
        wall: Callable[[], float],
        root: Path = Path("/"),
    ) -> None:
        """`kubeconfig`: the file; empty: a service account in a pod, else the kubelet's file."""
        self._kubeconfig = kubeconfig
        self._environment = environment
        self._wall = wall
        self._root = root
        self._lock = Lock()
        self._known: Access | None = None
        self._read: dict[Path, object] = {}
        self._expires: float | None = None

    @property
    def in_pod(self) -> bool:
        """Whether they are those of a pod's service account."""
        return not self._kubeconfig and bool(self._environment.get("KUBERNETES_SERVICE_HOST"))

    def exist(self, network: Callable[[], bool] | None = None) -> bool:
        """Whether there are any, as far as their files tell, and a network to use them on."""
        if not (network or has_network)():
            return False
        if self._kubeconfig:
            return Path(self._kubeconfig).is_file()
        if self.in_pod:
            return (self._root / ACCOUNT / "token").is_file()
        return any((self._root / name).is_file() for name in KUBELET_FILES)

    def access(self, *, refresh: bool = False) -> Access:
        """The credentials as they are now; CredentialsError if there are none.

        `refresh`: read everything again, since the server did not accept these.
        """
        with self._lock:
            late = self._expires is not None and self._wall() >= self._expires - EXPIRES_SOON
            if self._known is None or refresh or late or self._changed():
                self._read, self._expires = {}, None
                self._known = None
                self._known = self._find()
            return self._known

    def _changed(self) -> bool:
        return any(identity(path) != before for path, before in self._read.items())

    def _find(self) -> Access:
        if self._kubeconfig:
            return self._of_kubeconfig(Path(self._kubeconfig))
        if self.in_pod:
            return self._of_account()
        for name in KUBELET_FILES:
            if (self._root / name).is_file():
                return self._of_kubeconfig(self._root / name)
        places = ", ".join(f"/{name}" for name in KUBELET_FILES)
        raise CredentialsError(
            f"no credentials for the API server: not in a pod, and none of {places} exists; set "
            "[dra] kubeconfig"
        )

    def _of_account(self) -> Access:
        folder = self._root / ACCOUNT
        port = self._environment.get("KUBERNETES_SERVICE_PORT", "443")
        return Access(
            self._environment["KUBERNETES_SERVICE_HOST"],
            int(port) if port.isdigit() else 443,
            ca=self._content(folder / "ca.crt"),
            token=_token(self._content(folder / "token"), folder / "token"),
        )

    def _of_kubeconfig(self, path: Path) -> Access:
        from sgpud.yaml_reader import YamlError, read_documents  # noqa: PLC0415 - not in a pod

        try:
            documents = read_documents(self._content(path))
        except YamlError as error:
            raise CredentialsError(f"{path}: {error}") from error
        config = documents[0] if documents else None
        if not isinstance(config, dict):
            raise CredentialsError(f"{path}: not a kubeconfig")
        current = _text(config, "current-context")
        context = _named(config, "contexts", "context", current, path)
        cluster = _named(config, "clusters", "cluster", _text(context, "cluster"), path)
        user = _named(config, "users", "user", _text(context, "user"), path)
        return self._with_user(self._server(cluster, path), user, cluster, path)

    def _server(self, cluster: Mapping[str, Any], path: Path) -> Access:
        try:
            address = urlsplit(_text(cluster, "server"))
            port = address.port
        except ValueError as error:
            raise CredentialsError(f"{path}: server: {error}") from error
        host = address.hostname or ""
        plain = address.scheme == "http"
        if not host or address.scheme not in ("http", "https"):
            raise CredentialsError(f"{path}: server is not a URL such as https://192.0.2.1:6443")
        if plain and host not in LOOPBACK:
            raise CredentialsError(f"{path}: server is http://: sgpud speaks TLS only")
        if _true(cluster, "insecure-skip-tls-verify"):
            raise CredentialsError(f"{path}: insecure-skip-tls-verify: name an authority instead")
        if _text(cluster, "proxy-url"):
            raise CredentialsError(f"{path}: proxy-url is not supported")
        return Access(
            host,
            port or (80 if plain else 443),
            ca=self._either(cluster, "certificate-authority", path),
            name=_text(cluster, "tls-server-name"),
            prefix=address.path.rstrip("/"),
            plain=plain,
        )

    def _with_user(
        self, access: Access, user: Mapping[str, Any], cluster: Mapping[str, Any], path: Path
    ) -> Access:
        if user.get("auth-provider"):
            raise CredentialsError(f"{path}: auth-provider is obsolete; use exec or a certificate")
        certificate = self._either(user, "client-certificate", path)
        key = self._either(user, "client-key", path)
        access = evolve(access, certificate=certificate, key=key or certificate)
        if file := _text(user, "tokenFile"):
            where = path.parent / file
            return evolve(access, token=_token(self._content(where), where))
        if token := _text(user, "token"):
            return evolve(access, token=_token(token.encode(), path))
        if isinstance(plugin := user.get("exec"), dict):
            return self._executed(access, plugin, cluster, path)
        return access

    def _executed(
        self, access: Access, plugin: Mapping[str, Any], cluster: Mapping[str, Any], path: Path
    ) -> Access:
        """The credentials that a plugin prints (client.authentication.k8s.io)."""
        version = _text(plugin, "apiVersion")
        if version not in EXEC_VERSIONS:
            raise CredentialsError(f"{path}: exec: apiVersion {version} is not supported")
        spec: dict[str, Any] = {"interactive": False}
        if _true(plugin, "provideClusterInfo"):
            ca = base64.b64encode(access.ca).decode()
            server = _text(cluster, "server")
            spec["cluster"] = {"server": server, "certificate-authority-data": ca}
        told = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": spec})
        named = {_text(each, "name"): _text(each, "value") for each in _dicts(plugin.get("env"))}
        words = plugin.get("args")
        command = [_text(plugin, "command"), *(words if isinstance(words, list) else ())]
        try:
            done = subprocess.run(
                [str(word) for word in command],
                env={**self._environment, **named, "KUBERNETES_EXEC_INFO": told},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=EXEC_WITHIN,
                check=True,
                cwd=path.parent,
            )
            status = json.loads(done.stdout)["status"]
            if not isinstance(status, dict):
                raise TypeError(status)  # noqa: TRY301 - as any other answer that is none
            expires = _text(status, "expirationTimestamp")
            self._expires = _time(expires) if expires else None
            token = _text(status, "token")
            return evolve(
                access,
                token=_token(token.encode(), path) if token else "",
                certificate=_text(status, "clientCertificateData").encode() or access.certificate,
                key=_text(status, "clientKeyData").encode() or access.key,
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or b""
            tail = said.decode(errors="replace").strip()[-200:]
            raise CredentialsError(f"{path}: exec {command[0]} failed: {tail or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CredentialsError(
                f"{path}: exec {command[0]} did not print an ExecCredential"
            ) from error

    def _either(self, table: Mapping[str, Any], key: str, path: Path) -> bytes:
        """What a file that is named, or data in base64, holds; data wins, as in kubectl."""
        if data := _text(table, f"{key}-data"):
            try:
                return base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError) as error:
                raise CredentialsError(f"{path}: {key}-data is not base64") from error
        name = _text(table, key)
        return self._content(path.parent / name) if name else b""

    def _content(self, path: Path) -> bytes:
        self._read[path] = identity(path)
        try:
            return read_regular(path, LARGEST)
        except OSError as error:
            raise CredentialsError(f"cannot read {path}: {error.strerror or error}") from error


def _token(raw: bytes, path: Path) -> str:
    text = raw.decode("latin-1").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise CredentialsError(f"{path}: not a token")
    return text


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def _true(table: Mapping[str, Any], key: str) -> bool:
    return table.get(key) in (True, "true", "True")


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    for one in value if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield one


def _named(
    config: Mapping[str, Any], section: str, key: str, name: str, path: Path
) -> Mapping[str, Any]:
    for entry in _dicts(config.get(section)):
        if entry.get("name") == name:
            found = entry.get(key)
            return found if isinstance(found, dict) else {}
    raise CredentialsError(f'{path}: {section} has no "{name}"')
