"""The image as the manifests run it. `make test-image` builds it and says where it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.image.machine import Image, Machine

if "SGPUD_IMAGE" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def image(need_tool: Callable[[str], str]) -> Image:
    return Image(os.environ["SGPUD_IMAGE"], os.environ["SGPUD_IMAGE_ROOT"], need_tool)


@pytest.fixture
def machine(image: Image, need_tool: Callable[[str], str]) -> Iterator[Machine]:
    """A node whose pods are those of the overlay `fake-gpus`."""
    with Machine(image, need_tool) as machine:
        yield machine


@pytest.fixture
def kubelet(machine: Machine) -> Iterator[StandInKubelet]:
    with machine.kubelet() as kubelet:
        yield kubelet
