"""Files as the world writes them: CDI specs, runtimes' configurations, other plugins' files."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from sgpud.cli.convert.command import run
from sgpud.config.load import parse
from sgpud.gpus.cdi import read_specs
from sgpud.gpus.container_runtime import runtime_configs
from sgpud.gpus.host import look
from tests.core.values import gpu
from tests.world import inputs

GPU = evolve(gpu(3), index=0)
KIND = "nvidia.com/gpu"


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_spec_of_nvidias_toolkit_names_its_gpu(tmp_path: Path) -> None:
    put(tmp_path, "etc/cdi/nvidia.yaml", inputs.TOOLKIT_SPEC)
    put(tmp_path, "etc/cdi/nic.yaml", inputs.FOREIGN_SPEC)
    host = look(tmp_path, [GPU], KIND, ())
    assert host.access[GPU.uuid].cdi == f"{KIND}={GPU.uuid}"
    assert read_specs(tmp_path, KIND).unreadable == ()


def test_rke2s_configuration_names_nvidias_runtime(tmp_path: Path) -> None:
    name = "var/lib/rancher/rke2/agent/etc/containerd/config.toml"
    put(tmp_path, name, inputs.RKE2_CONTAINERD)
    assert look(tmp_path, [], KIND, ()).runtime == f"/{name} names nvidia-container-runtime"


def test_taloss_configuration_is_read_with_its_runtime_where_the_extension_puts_it(
    tmp_path: Path,
) -> None:
    put(tmp_path, "etc/cri/conf.d/20-customization.part", inputs.TALOS_CONTAINERD)
    assert look(tmp_path, [], KIND, ()).runtime == ""
    put(tmp_path, "usr/local/bin/nvidia-container-runtime", "")
    assert look(tmp_path, [], KIND, ()).runtime == "/usr/local/bin/nvidia-container-runtime exists"
    (config,) = runtime_configs(tmp_path)
    assert config.problem == ""


def test_the_device_all_is_a_gpu_where_there_is_one_only(tmp_path: Path) -> None:
    kind = "management.nvidia.com/gpu"
    put(tmp_path, "var/run/cdi/management.nvidia.com-gpu.yaml", inputs.MANAGEMENT_SPEC)
    put(tmp_path, "dev/nvidia3", "")
    assert look(tmp_path, [GPU], kind, ()).access[GPU.uuid].cdi == f"{kind}=all"
    other = evolve(GPU, uuid="GPU-other", minor=4)
    assert look(tmp_path, [other], kind, ()).access[other.uuid].cdi == ""
    assert (
        "no CDI spec of nvidia.com/gpu"
        in look(tmp_path, [GPU], KIND, ()).access[GPU.uuid].cdi_missing
    )


def test_the_values_of_nvidias_chart_are_converted(tmp_path: Path) -> None:
    put(tmp_path, "values.yaml", inputs.CHART_VALUES)
    found = parse(run(str(tmp_path / "values.yaml"))["toml"], "x").sharing
    assert (found.default.resource, found.default.factor) == ("nvidia.com/gpu.shared", 7)


@pytest.mark.parametrize(("entry", "factor"), [("any", 4), ("rtx", 8)])
def test_what_kubectl_prints_is_converted(tmp_path: Path, entry: str, factor: int) -> None:
    put(tmp_path, "map.yaml", inputs.KUBECTL_CONFIG_MAP)
    found = parse(run(str(tmp_path / "map.yaml"), entry)["toml"], "x").sharing
    assert found.default.factor == factor
