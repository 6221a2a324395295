"""What was reported of other plugins, on sgpud: each report gives what it should have given."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from sgpud.cli.convert.command import run
from sgpud.cli.convert.draft import ConvertError
from sgpud.cli.convert.nvidia import mig_profile
from sgpud.config.load import parse
from sgpud.core.gpu.gpu import Gpu, matches
from sgpud.core.gpu.observations import Sample
from sgpud.core.health.machine import HealthPhase
from sgpud.core.health.node_health import health_of, sampled
from sgpud.core.planning.holdings import CheckpointState
from sgpud.gpus.host import look
from tests.core.values import gpu, node, sharing
from tests.world import reports
from tests.world.nvml import processes, sample

KIND = "nvidia.com/gpu"
ONE = evolve(gpu(0), minor=0)


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cdi_of(root: Path, one: Gpu = ONE) -> tuple[str, str]:
    access = look(root, [one], KIND, ()).access[one.uuid]
    return access.cdi, access.cdi_missing


# CDI. --------------------------------------------------------------------------------------------


def test_a_spec_in_both_folders_is_that_of_the_later_one(tmp_path: Path) -> None:
    text = reports.SPEC_OF_BOTH_FOLDERS
    put(tmp_path, "etc/cdi/nvidia.yaml", text)
    put(tmp_path, "var/run/cdi/nvidia.yaml", text)
    assert cdi_of(tmp_path) == (f"{KIND}=0", "")
    put(tmp_path, "var/run/cdi/nvidia.yaml", text.replace("nvidia0", "nvidia3"))
    assert "/var/run/cdi/nvidia.yaml injects nvidia3, but this GPU is" in cdi_of(tmp_path)[1]


def test_a_spec_of_an_old_toolkit_says_what_its_version_does_not_allow(tmp_path: Path) -> None:
    put(tmp_path, "etc/cdi/nvidia.yaml", reports.SPEC_OF_TOOLKIT_1_12)
    name, why = cdi_of(tmp_path)
    assert name == ""
    assert "device 0 begins with a digit, which cdiVersion 0.5.0 is the first to allow" in why


def test_the_one_device_of_wsl2_is_every_gpu_of_the_machine(tmp_path: Path) -> None:
    windows = evolve(ONE, minor=None)
    put(tmp_path, "etc/cdi/nvidia.yaml", reports.SPEC_OF_WSL2)
    assert cdi_of(tmp_path, windows)[0] == ""
    put(tmp_path, "dev/dxg", "")
    assert cdi_of(tmp_path, windows) == (f"{KIND}=all", "")


def test_a_device_without_edits_spoils_its_file_for_runtimes(tmp_path: Path) -> None:
    put(tmp_path, "var/run/cdi/test.yaml", reports.SPEC_WITHOUT_EDITS)
    name, why = cdi_of(tmp_path)
    assert name == ""
    assert (
        "/var/run/cdi/test.yaml is not a valid CDI spec: device demo1 has no containerEdits" in why
    )


@pytest.mark.parametrize("link", ["/run", "../run"])
def test_nixos_keeps_its_spec_in_run(tmp_path: Path, link: str) -> None:
    put(tmp_path, "run/cdi/nvidia-container-toolkit.json", reports.SPEC_OF_NIXOS)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to(link)
    assert cdi_of(tmp_path) == (f"{KIND}=0", "")


def test_gpus_that_were_drained_leave_device_nodes_with_gaps(tmp_path: Path) -> None:
    devices = "".join(
        f"- {{name: '{index}', containerEdits: {{deviceNodes: [{{path: /dev/nvidia{minor}}}]}}}}\n"
        for index, minor in reports.DRAINED
    )
    put(tmp_path, "etc/cdi/a.yaml", f"cdiVersion: 0.5.0\nkind: {KIND}\ndevices:\n{devices}")
    for index, minor in reports.DRAINED:
        assert cdi_of(tmp_path, gpu(index, minor=minor)) == (f"{KIND}={index}", "")
        assert cdi_of(tmp_path, gpu(index, minor=index))[0] == ""


# Runtimes. ---------------------------------------------------------------------------------------


def test_k3s_names_the_runtime_that_it_has_found(tmp_path: Path) -> None:
    path = "var/lib/rancher/k3s/agent/etc/containerd/config.toml"
    put(tmp_path, path, reports.K3S_CONTAINERD)
    assert look(tmp_path, [], KIND, ()).runtime == f"/{path} names nvidia-container-runtime"


def test_bottlerockets_runtime_takes_volume_mounts(tmp_path: Path) -> None:
    put(tmp_path, "etc/nvidia-container-runtime/config.toml", reports.BOTTLEROCKET_RUNTIME)
    host = look(tmp_path, [], KIND, ())
    assert (bool(host.runtime), host.volume_mounts) == (True, True)


# Other plugins' files. ---------------------------------------------------------------------------


def converted(tmp_path: Path, text: str, entry: str | None = None) -> tuple[str, int, str]:
    put(tmp_path, "file.yaml", text)
    found = run(str(tmp_path / "file.yaml"), entry)
    default = parse(found["toml"], "x").sharing.default
    return default.resource, default.factor, "\n".join(found["notes"])


def test_a_config_map_beside_the_daemonset_that_reads_it(tmp_path: Path) -> None:
    assert converted(tmp_path, reports.FIVE_SPACES)[:2] == ("nvidia.com/gpu.shared", 4)


def test_a_flag_in_the_wrong_place_is_not_applied_and_said(tmp_path: Path) -> None:
    resource, factor, notes = converted(tmp_path, reports.MISPLACED_FLAG)
    assert (resource, factor) == ("nvidia.com/gpu", 10_000)
    assert "flags.renameByDefault: is unknown" in notes
    assert "is 16384; 10000 is the maximum" in notes


def test_tabs_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="line 3"):
        converted(tmp_path, reports.TABS)


@pytest.mark.parametrize(("entry", "factor"), [("slice-4", 4), ("slice-10", 10)])
def test_one_of_two_configurations_is_to_be_chosen(tmp_path: Path, entry: str, factor: int) -> None:
    assert converted(tmp_path, reports.TWO_SLICES, entry)[1] == factor
    with pytest.raises(ConvertError, match=r"choose one with --entry: .*slice-4, .*slice-10"):
        converted(tmp_path, reports.TWO_SLICES)


@pytest.mark.parametrize("text", reports.DEPLOYED_CHARTS)
def test_the_values_of_a_chart_are_found_in_what_deploys_it(text: str, tmp_path: Path) -> None:
    assert converted(tmp_path, text)[1] == 6
    assert converted(tmp_path, f"{text}---\nkind: Service\nspec: {{values: x}}\n")[1] == 6


@pytest.mark.parametrize(("profile", "resource"), reports.RTX_PRO_PROFILES)
def test_every_profile_of_an_rtx_pro_is_found_by_the_name_of_its_resource(
    profile: str, resource: str, tmp_path: Path
) -> None:
    assert mig_profile(resource.removeprefix("nvidia.com/mig-")) == profile
    text = (
        "version: v1\nsharing:\n  timeSlicing:\n    resources:\n"
        f"    - {{name: {resource}, replicas: 3}}\n"
    )
    put(tmp_path, "file.yaml", text)
    found = run(str(tmp_path / "file.yaml"))
    (rule,) = parse(found["toml"], "x").sharing.rules
    product = f"NVIDIA RTX PRO 6000 Blackwell Server Edition MIG {profile}"
    assert matches(rule.match, gpu(0, product))
    assert not matches(rule.match, gpu(0, f"{product}.x"))
    assert (rule.resource, rule.factor) == (resource, 3)
    assert not found["notes"]


# What NVML says. ---------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", reports.IMPOSSIBLE_PERCENT)
def test_a_use_beyond_100_percent_is_unknown(percent: int) -> None:
    found = sample(utilisation=percent)
    assert (found.samples[0].utilisation, found.samples[0].used) == (None, 1)
    assert str(percent) in found.odd[0]
    told = processes([7, 1024, percent])
    assert [(one.used, one.utilisation) for one in told.running[0].processes] == [(1024, None)]
    assert str(percent) in told.odd[0]


@pytest.mark.parametrize("flags", reports.REMAP_WITHOUT_XID)
def test_rows_that_fail_to_remap_or_wait_for_it_end_new_pods_without_an_xid(
    flags: tuple[bool, bool],
) -> None:
    pending, failed = flags
    seen = Sample(ONE.uuid, 1, 2, 0, 0, 0, 0, remap_pending=pending, remap_failed=failed)
    known = node(sharing(), [ONE], CheckpointState())
    health = health_of(sampled(known, [seen], 5.0), ONE.uuid)
    assert health.phase is (HealthPhase.UNHEALTHY if failed else HealthPhase.PROBATION)
    assert "remap" in str(health.cause)
