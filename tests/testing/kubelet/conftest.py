"""A stand-in kubelet and a scripted plugin, made anew for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.testing.kubelet.scripted import ScriptedPlugin


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "device-plugins"


@pytest.fixture
def kubelet(directory: Path, tmp_path: Path) -> Iterator[StandInKubelet]:
    with StandInKubelet(directory, tmp_path / "pod-resources" / "kubelet.sock") as kubelet:
        yield kubelet


@pytest.fixture
def plugin(kubelet: StandInKubelet) -> Iterator[ScriptedPlugin]:
    with ScriptedPlugin(kubelet.plugin_dir) as plugin:
        yield plugin
