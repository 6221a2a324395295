"""What is read of a running daemon, by people and machines, friendly or not."""

from __future__ import annotations

import json
import re
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sgpud.serve.control.client import StatusError, read_status
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import GPUS, RESOURCE, A, B, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import admit, became, waiting
from tests.daemon.web import free_port, get
from tests.schema import problems
from tools.status_schema import schema

GIB = 2**30
TRAIN, ALIEN = "0a1b2c3d-1111-4222-8333-444455556666", "0a1b2c3d-1111-4222-8333-777788889999"
ID = "0123456789abcdef" * 4
MEMORY = "deepomatic.com/shared-gpu-memory"


def status(node: Node) -> dict[str, Any]:
    """The status document, which fits its schema."""
    found = read_status(node.run, WITHIN)
    assert problems(found, schema()) == []
    return found


def until(node: Node, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Read the status, as soon as somebody answers, until it is such a one."""
    wait = threading.Event()
    found: dict[str, Any] = {}
    for _ in range(400):
        with suppress(StatusError):
            found = status(node)
            if wanted(found):
                return found
        wait.wait(0.1)
    raise AssertionError(json.dumps(found, indent=1))


GOLDEN = """\
sgpud 0.1.0: serving, driver fake, TIME
deepomatic.com/shared-gpu-memory: registered, 2 held, 62 free (64 allocatable)

GPU, HOLDER                   MEMORY     OF  BUSY  SHARES
0 NVIDIA A100-SXM4-40GB     0 B   0%  40GiB    0%  0 held, 40 free
  {A}: healthy
  memory limits: watch (it is a fake GPU)
1 NVIDIA L4              5.5GiB  22%  24GiB   63%  2 held, 22 free
  {B}: healthy
  memory limits: watch (it is a fake GPU)
  team/train/main               3GiB   2GiB   40%  2, over by 1GiB
  cat PID in pod {ALIEN}      2GiB          20%  holds no share
  cat PID                     512MiB           3%  not in a pod
"""


def test_who_uses_what_on_one_screen(node: Node, kubelet: StandInKubelet) -> None:
    top = f"sgpud-test-{node.root.name}"
    paths = {
        "train": f"{top}/kubepods/burstable/pod{TRAIN}/{ID}",
        "alien": f"{top}/kubepods.slice/kubepods-pod{ALIEN.replace('-', '_')}.slice/"
        f"cri-containerd-{ID}.scope",
        "outside": "",
    }
    with waiting(paths) as pids:
        sizes = {"train": ("3GiB", 40), "alien": ("2GiB", 20), "outside": ("512MiB", 3)}
        script = "".join(
            f'[[event]]\nat = "0s"\ngpu = 1\nprocess = {pids[name]}\nmemory = "{size}"\n'
            f"utilisation = {busy}\n"
            for name, (size, busy) in sizes.items()
        )
        node.gpus.write_text(GPUS + script)
        node.configure(resource=MEMORY, sharing='share_memory = "1GiB"\nadvertise = "all"')
        node.start()
        became(kubelet, MEMORY, 64, 64)
        given = kubelet.admit(TRAIN, "team", "train", "main", {MEMORY: 2}, timeout=WITHIN)
        assert given.envs["SGPUD_GPU_UUIDS"] == B
        found = until(node, lambda seen: named(seen["gpus"][1]))
        (container,) = found["gpus"][1]["containers"]
        assert (container["granted"], container["used"]) == (2 * GIB, 3 * GIB)
        shown = node.command("status", "--run-dir", str(node.run))
        assert (shown.returncode, shown.stderr) == (0, "")
        golden = GOLDEN.format(A=A, B=B, ALIEN=ALIEN)
        assert plain(shown.stdout) == plain(golden)
        by_memory = plain(node.command("top", "--run-dir", str(node.run)).stdout)
        assert sorted(by_memory) == sorted(plain(golden))
        assert by_memory[4].startswith("1 NVIDIA L4")
        json_shown = node.command("status", "--json", "--run-dir", str(node.run)).stdout
        assert problems(json.loads(json_shown), schema()) == []


def test_overuse_is_found_counted_and_explained(node: Node, kubelet: StandInKubelet) -> None:
    path = f"sgpud-test-{node.root.name}/kubepods/burstable/pod{TRAIN}/{ID}"
    with waiting({"train": path}) as pids:
        node.gpus.write_text(
            f'{GPUS}[[event]]\nat = "0s"\ngpu = 1\nprocess = {pids["train"]}\nmemory = "3GiB"\n'
        )
        limits = '[limits]\npressure = "always"\nover_for = "1s"\n'
        sharing = 'share_memory = "1GiB"\nadvertise = "all"\nmeasure_every = "1s"'
        node.configure(resource=MEMORY, sharing=sharing, rest=limits)
        node.start()
        became(kubelet, MEMORY, 64, 64)
        kubelet.admit(TRAIN, "team", "train", "main", {MEMORY: 2}, timeout=WITHIN)

        def victim(seen: dict[str, Any]) -> bool:
            return any("more than any" in one["verdict"] for one in seen["gpus"][1]["containers"])

        found = until(node, victim)
        (container,) = found["gpus"][1]["containers"]
        assert container["over"] == GIB
        assert container["over_for"] >= 1.0
        assert found["counters"]["overuse"][B] >= 1
        assert found["gpus"][1]["enforcement"] == "watch"
        said = node.command("explain", "team/train", "--run-dir", str(node.run)).stdout
        assert f"team/train/main has used 1GiB more memory of {B}" in " ".join(said.split())


def named(gpu: dict[str, Any]) -> bool:
    """Whether a pod that holds a share of it has its name, and its processes are known."""
    return any(one["pod"] for one in gpu["containers"]) and not gpu["use_problem"]


def plain(shown: str) -> list[str]:
    """The words of each line, with times and process ids as names."""
    shown = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", shown)
    shown = re.sub(r"\bcat \d+\b", "cat PID", shown)
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_the_socket_is_for_root_and_its_group(node: Node, daemon: Process) -> None:
    path = node.run / "status.sock"
    found = status(node)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert (found["unready"], found["dead"]) == ([], [])
    assert daemon.end() < WITHIN
    assert not path.exists()
    done = node.command("status", "--run-dir", str(node.run))
    assert done.returncode == 1
    assert done.stderr.startswith(f"sgpud: No sgpud answers on {path}. Start it")


def test_a_daemon_that_waits_for_its_directory_says_so(node: Node) -> None:
    node.start().said("2 GPUs, driver fake")
    found = until(node, lambda seen: seen["gpus"])
    assert found["serving"] == "no plugin directory"
    assert found["unready"] == ["no plugin directory"]


def test_a_standby_reads_nothing_to_anybody_until_it_serves(
    node: Node, kubelet: StandInKubelet, daemon: Process
) -> None:
    standby = node.start()
    standby.said("Another sgpud serves")
    assert status(node)["serving"] == "serving"
    daemon.end()
    became(kubelet, RESOURCE, 20, 20)
    until(node, lambda seen: seen["serving"] == "serving")
    assert standby.running


def test_over_http(node: Node, kubelet: StandInKubelet) -> None:
    port = free_port()
    node.configure(rest=f'[http]\nlisten = "tcp:{port}:interface=127.0.0.1"')
    process = node.start()
    process.said("Serving HTTP at")
    became(kubelet, RESOURCE, 20, 20)
    admit(kubelet, "pod")
    code, body = get(port, "/metrics")
    assert code == 200
    assert b'sgpud_list_messages_total{resource="deepomatic.com/shared-gpu"}' in body
    assert get(port, "/healthz") == (200, b"alive\n")
    assert get(port, "/readyz") == (200, b"ready: serving\n")
    assert json.loads(get(port, "/status")[1])["version"]
    assert get(port, "/status", "evil.example")[0] == 421
    node.configure(
        rest=f'[http]\nlisten = "tcp:{port}:interface=127.0.0.1"\nhosts = ["evil.example"]'
    )
    process.hang_up()
    assert get(port, "/status", "evil.example")[0] == 200


def test_a_hundred_bad_clients_stop_neither_an_allocation_nor_a_reader(
    node: Node, kubelet: StandInKubelet
) -> None:
    port = free_port()
    node.configure(100, rest=f'[http]\nlisten = "tcp:{port}:interface=127.0.0.1"')
    process = node.start()
    process.said("Serving HTTP at")
    became(kubelet, RESOURCE, 200, 200)
    garbage = (b"\x16\x03\x01\x02\x00\x01\x00" * 200, b"GET " + b"a" * 20_000, b"\r\n" * 5000)
    stopped = threading.Event()

    def spit() -> None:
        """Send garbage, again and again."""
        number = 0
        while not stopped.is_set():
            with socket.socket() as client:
                client.settimeout(1.0)
                try:
                    client.connect(("127.0.0.1", port))
                    client.sendall(garbage[number % len(garbage)])
                    client.recv(1000)
                except OSError:
                    pass
            number += 1

    spitting = [threading.Thread(target=spit, daemon=True) for _ in range(4)]
    slow = []
    try:
        for thread in spitting:
            thread.start()
        for number in range(100):
            client = socket.create_connection(("127.0.0.1", port), WITHIN)
            slow.append(client)
            client.sendall(b"GET /status HTTP/1.1\r\nHost: local")
            if number % 5 == 0:
                given = admit(kubelet, f"pod-{number}")
                assert len(given.ids[RESOURCE]) == 1
        assert get(port, "/healthz") == (200, b"alive\n")
        assert status(node)["version"]
        for number in range(20):
            assert len(admit(kubelet, f"late-{number}").ids[RESOURCE]) == 1
    finally:
        stopped.set()
        for client in slow:
            client.close()
        for thread in spitting:
            thread.join(2 * WITHIN)
    assert until(node, lambda seen: seen["counters"]["allocations"] == 40)


@pytest.mark.parametrize(
    "body", ["content-length: 5\r\n\r\nabcde", "transfer-encoding: chunked\r\n\r\n"]
)
def test_a_body_is_not_read(node: Node, body: str) -> None:
    node.start().said("2 GPUs, driver fake")
    until(node, lambda seen: seen["gpus"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(WITHIN)
        client.connect(str(node.run / "status.sock"))
        client.sendall(f"POST /status HTTP/1.1\r\nhost: localhost\r\n{body}".encode())
        received = b""
        while data := client.recv(1 << 16):
            received += data
    assert received.startswith(b"HTTP/1.1 413 ")
    assert received.count(b"HTTP/1.1") == 1
