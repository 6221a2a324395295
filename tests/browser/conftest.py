"""A browser, and a node with a daemon that serves the page."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.browser.driver import Browser
from tests.daemon.node import RESOURCE, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN

GPUS = """
[[gpu]]
uuid = "GPU-aaaaaaaa-0000-4000-8000-00000000000a"
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"

[[gpu]]
uuid = "GPU-bbbbbbbb-0000-4000-8000-00000000000b"
product = "NVIDIA L4"
memory = "24GiB"

[[event]]
at = "0s"
gpu = 0
used = "31GiB"

[[event]]
at = "0s"
gpu = 1
used = "9GiB"
"""


@frozen
class Shown:
    """A daemon that serves its page."""

    node: Node
    kubelet: StandInKubelet
    daemon: Process
    address: str


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: $SGPUD_ARTEFACTS, or a folder of pytest's."""
    named = os.environ.get("SGPUD_ARTEFACTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="session")
def window(need_tool: Callable[[str], str]) -> Iterator[Browser]:
    with Browser(need_tool("chromedriver"), need_tool("chromium")) as window:
        yield window


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The window, with nothing in it and nothing in its logs."""
    yield window
    window.show("about:blank", 800, 600)
    window.prefer("light")
    window.complaints()
    window.requests()


@pytest.fixture
def shown() -> Iterator[Shown]:
    """Memory shares of 1 GiB, listed by the kubelet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Node() as node, node.kubelet() as kubelet:
        node.gpus.write_text(GPUS)
        node.configure(
            sharing='share_memory = "1GiB"\nadvertise = "all"\nmeasure_every = "1s"',
            rest=f'[http]\nlisten = "tcp:{port}:interface=127.0.0.1"\n',
        )
        daemon = node.start()
        kubelet.next_registration(WITHIN)
        kubelet.next_devices(RESOURCE, WITHIN)
        daemon.said("Serving HTTP")
        yield Shown(node, kubelet, daemon, f"http://127.0.0.1:{port}/")
