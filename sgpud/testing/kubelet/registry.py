"""The kubelet's registration server on kubelet.sock, and its clients, one per resource name.

Clients are kept by resource name alone, as in kubelets up to 1.36. That is the name race: when a
stream ends, whichever client has its resource name is disconnected, though it may be a newer one.
"""

from __future__ import annotations

import contextlib
import re
import stat
import threading
from typing import TYPE_CHECKING, NoReturn

import grpc

from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.testing.kubelet.listener import ENDING, BoundServer
from sgpud.testing.kubelet.plugins import PluginClient, PluginError
from sgpud.testing.kubelet.records import Attempt, Registration

if TYPE_CHECKING:
    from pathlib import Path

    from sgpud.testing.kubelet.device_manager import DeviceManager
    from sgpud.testing.kubelet.faults import RegistrationFaults

SOCKET = "kubelet.sock"
VERSION = "v1beta1"

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_MAX_DOMAIN = 253 - len("requests.")


def valid_resource(name: str) -> bool:
    """Whether a name is an extended resource's: domain/name, not Kubernetes' own."""
    domain, slash, last = name.partition("/")
    return bool(
        slash
        and "kubernetes.io/" not in name
        and not name.startswith("requests.")
        and len(domain) <= _MAX_DOMAIN
        and _DOMAIN.fullmatch(domain)
        and _NAME.fullmatch(last)
    )


class Registry:
    """The registration server and the connections to the plugins of one kubelet life."""

    def __init__(
        self,
        directory: Path,
        manager: DeviceManager,
        faults: RegistrationFaults,
        dial_timeout: float,
    ) -> None:
        """Clear the directory's stale sockets and serve kubelet.sock."""
        self._directory = directory
        self._manager = manager
        self._faults = faults
        self._dial_timeout = dial_timeout
        self._lock = threading.Lock()
        self._clients: dict[str, PluginClient] = {}
        self._every: list[PluginClient] = []
        self._stopped = False
        faults.begin()
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        wipe_sockets(directory)
        register = grpc.unary_unary_rpc_method_handler(
            self._register,
            request_deserializer=api.RegisterRequest.FromString,
            response_serializer=api.Empty.SerializeToString,
        )
        self._server = BoundServer(
            directory / SOCKET,
            grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": register}),
        )

    def disconnect(self, resource: str) -> PluginClient | None:
        """Close the connection to the plugin that has this resource name, as the kubelet does."""
        with self._lock:
            client = self._clients.pop(resource, None)
        if client is not None:
            client.close()
            self._manager.disconnected(resource)
        return client

    def drop(self, resource: str) -> None:
        """Disconnect, and wait for the end of the stream: it cannot hit a later registration."""
        client = self.disconnect(resource)
        if client is not None:
            client.join(ENDING)

    def stop(self, *, leave_socket: bool) -> None:
        """End every connection and the server; TimeoutError when something does not end."""
        with self._lock:
            self._stopped = True
            clients, self._every = self._every, []
            self._clients.clear()
        self._server.cancel()
        self._faults.end()
        for client in clients:
            client.close()
            self._manager.disconnected(client.resource)
        self._server.close(leave_socket=leave_socket)
        for client in clients:
            client.join(ENDING)

    def _register(self, request: api.RegisterRequest, context: grpc.ServicerContext) -> api.Empty:
        name, endpoint = request.resource_name, request.endpoint
        self._manager.attempted(Attempt(self._manager.clock(), name, endpoint, request.version))
        refusal = self._faults.before()
        if refusal is not None:
            context.abort(refusal.code, refusal.message)
        if request.version != VERSION:
            _fail(context, f'API version "{request.version}" is not supported, "{VERSION}" is')
        if not valid_resource(name):
            _fail(context, f'"{name}" is not the name of an extended resource')
        client = PluginClient(name, self._directory / endpoint, self._manager)
        with self._lock:
            if self._stopped:
                client.close()
                _fail(context, "the kubelet is stopping")
            self._clients[name] = client
            self._every.append(client)
        try:
            client.connect(self._dial_timeout)
        except PluginError as error:
            with self._lock:
                self._clients.pop(name, None)
            client.close()
            _fail(context, f"cannot connect to {endpoint}: {error}")
        self._manager.connected(
            client,
            Registration(
                self._manager.clock(),
                name,
                endpoint,
                client.options.get_preferred_allocation_available,
                client.options.pre_start_required,
            ),
        )
        if self._faults.follows():
            client.follow(self._ended)
        self._faults.after()
        return api.Empty()

    def _ended(self, client: PluginClient) -> None:
        # By name, not by client: the name race.
        self.disconnect(client.resource)
        with self._lock, contextlib.suppress(ValueError):
            self._every.remove(client)
        client.close()


def wipe_sockets(directory: Path) -> None:
    """Remove every unix socket of a directory; files and folders stay."""
    for entry in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(entry.lstat().st_mode):
                entry.unlink()


def _fail(context: grpc.ServicerContext, message: str) -> NoReturn:
    # An error of the kubelet's own has no gRPC code: UNKNOWN.
    context.abort(grpc.StatusCode.UNKNOWN, message)
    raise AssertionError  # abort has raised
