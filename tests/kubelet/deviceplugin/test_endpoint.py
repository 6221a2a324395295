"""Endpoints on real sockets: their names, their start and end, and what an earlier run left."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as installed  # noqa: TID251 - endpoints end in its threads
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from sgpud.config.schema.formats import SOCKET_NAME, SUN_PATH
from sgpud.core.allocation.allocate import RefusedError
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.deviceplugin.endpoint import (
    FINISH_WITHIN,
    Endpoint,
    EndpointError,
    clear_stale,
    socket_name,
    try_bind,
)
from sgpud.kubelet.deviceplugin.messages import plugin_options
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.kubelet.deviceplugin.servicer import SERVICE, DevicePluginServicer
from tests.core.values import POOL, gpu, ids, node, planned, sharing
from tests.surroundings import WITHIN, descriptors, short_folder, without_privilege

OPTIONS = plugin_options(prefers=True)
reactor: Any = installed
Steps = Any
"""What inlineCallbacks takes."""
NONCE = "0123abcd"


def bind(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


# Names. ------------------------------------------------------------------------------------------


@given(st.text(), st.integers(0, 10**9))
def test_a_socket_name_fits_and_is_recognised(resource: str, generation: int) -> None:
    name = socket_name(resource.encode("ascii", "replace").decode(), NONCE, generation)
    assert len(name) <= SOCKET_NAME
    assert re.fullmatch(r"[a-z0-9.-]+", name)


def test_every_generation_pool_and_process_has_a_name_of_its_own() -> None:
    names = {
        socket_name(resource, nonce, generation)
        for resource in (POOL, "example.com/other")
        for nonce in (NONCE, "ffff0000")
        for generation in (1, 2, 11)
    }
    assert len(names) == 12


# What is left in the directory. ------------------------------------------------------------------


def test_only_sockets_of_ours_are_cleared(tmp_path: Path) -> None:
    with short_folder() as folder:
        ours = [socket_name(POOL, nonce, 7) for nonce in (NONCE, "ffff0000")]
        others = ["kubelet.sock", "nvidia-gpu.sock", "sgpud.sock", f"x{ours[0]}", f"{ours[0]}.old"]
        bound = [bind(folder / name) for name in (*ours, *others)]
        file, directory = socket_name(POOL, NONCE, 8), socket_name(POOL, NONCE, 9)
        link = socket_name(POOL, NONCE, 10)
        (folder / file).touch()
        (folder / directory).mkdir()
        target = tmp_path / "kept"
        target.touch()
        (folder / link).symlink_to(folder / "kubelet.sock")
        assert sorted(clear_stale(folder)) == sorted(ours)
        assert {entry.name for entry in folder.iterdir()} == {*others, file, directory, link}
        assert clear_stale(folder) == []
        for each in bound:
            each.close()


def test_a_socket_that_cannot_be_removed_is_ignored(tmp_path: Path) -> None:
    with short_folder() as folder:
        folder.chmod(0o555)
        bound = bind(folder / socket_name(POOL, NONCE, 1))
        folder.chmod(0o555)
        with without_privilege():
            assert clear_stale(folder) == []
        folder.chmod(0o755)
        bound.close()
    assert tmp_path.is_dir()


# Whether one could be bound. ---------------------------------------------------------------------


def test_a_bind_check_leaves_nothing_behind() -> None:
    with short_folder() as folder:
        before = descriptors()
        assert try_bind(folder, NONCE) == ""
        assert try_bind(folder, NONCE) == ""
        assert list(folder.iterdir()) == []
        assert descriptors() <= before


def test_a_failed_bind_check_says_why(tmp_path: Path) -> None:
    with short_folder() as folder:
        # A short path: the folder of a test may be too long for a socket.
        assert "No such file" in try_bind(folder / "absent", NONCE)
        with without_privilege():
            assert "denied" in try_bind(folder, NONCE)
    long = tmp_path / ("x" * SUN_PATH)
    long.mkdir()
    assert str(long) in try_bind(long, NONCE)


# Listening. --------------------------------------------------------------------------------------


class Deaf:
    """Hears nothing of streams and refusals."""

    def streams(self, live: int) -> None:
        pass

    def refused(self, resource: str, refusal: RefusedError) -> None:
        pass

    def listed(self, resource: str) -> None:
        pass


class EndpointTest(TestCase):
    timeout = 40

    def setUp(self) -> None:
        folder = short_folder()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)
        self.inside = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.publisher = SnapshotPublisher(self.hold)
        assert self.publisher.put(planned(node(sharing(), [gpu(0, fake=True)])))

    def hold(self) -> None:
        """Keep the worker that gives something until the test lets it go on."""
        self.inside.set()
        self.go_on.wait(WITHIN)

    def endpoint(self, path: Path | None = None) -> Endpoint:
        servicer = DevicePluginServicer(POOL, self.publisher, Deaf(), lambda: 0.0)
        return Endpoint(path or self.folder / socket_name(POOL, NONCE, 1), servicer, reactor)

    def ask(self, path: Path, method: str, request: bytes = b"") -> Deferred[bytes]:
        def ask() -> bytes:
            with grpc.insecure_channel(f"unix:{path}") as channel:
                unary: Any = channel.unary_unary(f"/{SERVICE}/{method}")
                answer: bytes = unary(request, timeout=WITHIN)
                return answer

        return deferToThread(ask)

    @inlineCallbacks
    def test_it_answers_from_start_to_stop_and_leaves_no_file(self) -> Steps:
        endpoint = self.endpoint()
        endpoint.start()
        assert endpoint.path.is_socket()
        assert (yield self.ask(endpoint.path, "GetDevicePluginOptions")) == plugin_options(
            prefers=True
        )
        yield endpoint.stop()
        assert list(self.folder.iterdir()) == []
        yield self.assertFailure(self.ask(endpoint.path, "GetDevicePluginOptions"), grpc.RpcError)

    @inlineCallbacks
    def test_a_stop_ends_an_open_stream_and_frees_its_worker(self) -> Steps:
        endpoint = self.endpoint()
        endpoint.start()
        first = Deferred()  # type: ignore[var-annotated]

        def watch() -> grpc.StatusCode:
            with grpc.insecure_channel(f"unix:{endpoint.path}") as channel:
                watch: Any = channel.unary_stream(f"/{SERVICE}/ListAndWatch")
                stream = watch(b"", timeout=WITHIN)
                next(stream)
                reactor.callFromThread(first.callback, None)
                assert list(stream) == []
                code: grpc.StatusCode = stream.code()
                return code

        ended = deferToThread(watch)
        yield first
        yield endpoint.stop()
        assert (yield ended) in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)

    @inlineCallbacks
    def test_an_allocation_under_way_is_finished_before_the_end(self) -> Steps:
        endpoint = self.endpoint()
        endpoint.start()
        self.go_on.clear()
        request = api.AllocateRequest()
        request.container_requests.add(devices_ids=ids(0, 1))
        asked = self.ask(endpoint.path, "Allocate", request.SerializeToString())
        yield deferToThread(self.inside.wait, WITHIN)
        stopped = endpoint.stop()
        reactor.callLater(FINISH_WITHIN / 4, self.go_on.set)
        answer = api.AllocateResponse.FromString((yield asked))
        assert len(answer.container_responses) == 1
        yield stopped

    @inlineCallbacks
    def test_a_call_that_hangs_does_not_keep_the_endpoint(self) -> Steps:
        endpoint = self.endpoint()
        endpoint.start()
        self.go_on.clear()
        self.addCleanup(self.go_on.set)
        request = api.AllocateRequest()
        request.container_requests.add(devices_ids=ids(0, 1))
        asked = self.ask(endpoint.path, "Allocate", request.SerializeToString())
        yield deferToThread(self.inside.wait, WITHIN)
        yield endpoint.stop()
        assert not self.go_on.is_set()
        yield self.assertFailure(asked, grpc.RpcError)

    @inlineCallbacks
    def test_a_deleted_socket_file_is_not_an_error(self) -> Steps:
        endpoint = self.endpoint()
        endpoint.start()
        endpoint.path.unlink()
        yield endpoint.stop()

    @inlineCallbacks
    def test_the_end_of_one_generation_does_not_affect_the_next(self) -> Steps:
        first = self.endpoint()
        second = self.endpoint(self.folder / socket_name(POOL, NONCE, 2))
        first.start()
        second.start()
        yield first.stop()
        assert (yield self.ask(second.path, "GetDevicePluginOptions")) == plugin_options(
            prefers=True
        )
        yield second.stop()

    @inlineCallbacks
    def test_a_stop_without_a_start_fires_at_once(self) -> Steps:
        yield self.endpoint().stop()

    @inlineCallbacks
    def test_thirty_generations_leave_no_thread_and_no_descriptor(self) -> Steps:
        def count() -> int:
            return sum(1 for each in threading.enumerate() if each.name.startswith("kubelet"))

        before = 0
        for generation in range(30):
            endpoint = self.endpoint(self.folder / socket_name(POOL, NONCE, generation))
            endpoint.start()
            yield self.ask(endpoint.path, "GetDevicePluginOptions")
            yield endpoint.stop()
            before = before or descriptors()
        assert descriptors() <= before + 3
        # The last ones may still be ending; a leak would be one of each.
        assert count() <= 10
        assert list(self.folder.iterdir()) == []

    def test_a_folder_that_is_not_there_is_an_error_with_the_path(self) -> None:
        path = self.folder / "gone" / "a.sock"
        with pytest.raises(EndpointError, match=re.escape(f"cannot listen on {path}")) as caught:
            self.endpoint(path).start()
        assert caught.value.path == path

    def test_a_path_too_long_for_a_socket_is_an_error(self) -> None:
        path = self.folder / ("x" * SUN_PATH)
        with pytest.raises(EndpointError, match="cannot listen on"):
            self.endpoint(path).start()
        assert list(self.folder.iterdir()) == []
