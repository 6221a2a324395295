"""NVIDIA's YAML: what it becomes, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sgpud.cli.convert.command import run
from sgpud.config.load import parse
from sgpud.core.sharing.rules import GpuRule, InjectionMethod, Multiple, ShareTerms, Sharing

SLICES = """
version: v1
sharing:
  timeSlicing:
    resources:
    - name: nvidia.com/gpu
      replicas: 10
"""


def convert(tmp_path: Path, text: str, entry: str | None = None) -> dict[str, Any]:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return run(str(file), entry)


def sharing(found: dict[str, Any]) -> Sharing:
    return parse(found["toml"], "sgpud.toml").sharing


def test_time_slices_are_shares_of_the_same_resource(tmp_path: Path) -> None:
    found = convert(tmp_path, SLICES)
    assert sharing(found).default == ShareTerms("nvidia.com/gpu", 10)
    assert sharing(found).multiple is Multiple.ANY
    assert sharing(found).rules == ()
    assert found["notes"] == []
    assert "# Everything was converted." in found["toml"]


def test_renaming_by_default_and_refusing_more_than_one(tmp_path: Path) -> None:
    text = SLICES.replace(
        "    resources",
        "    renameByDefault: true\n    failRequestsGreaterThanOne: true\n    resources",
    )
    found = convert(tmp_path, text)
    assert sharing(found).default.resource == "nvidia.com/gpu.shared"
    assert sharing(found).multiple is Multiple.REFUSE
    assert found["notes"] == []


def test_named_gpus_become_rules_and_the_others_are_not_shared(tmp_path: Path) -> None:
    uuid = "GPU-b1028956-cfa2-0990-bf4a-5da9abb51763"
    found = convert(tmp_path, SLICES + f'      devices: [1, {uuid}, "0:1"]\n')
    assert sharing(found).default == ShareTerms("nvidia.com/gpu", 1)
    assert sharing(found).rules == (
        GpuRule("1", "nvidia.com/gpu", 10),
        GpuRule(uuid, "nvidia.com/gpu", 10),
    )
    assert any("ignores devices" in note for note in found["notes"])
    assert any("0:1: write the UUID" in note for note in found["notes"])


def test_a_number_of_gpus_means_the_first_ones(tmp_path: Path) -> None:
    found = convert(tmp_path, SLICES + "      devices: 2\n")
    assert [rule.match for rule in sharing(found).rules] == ["0", "1"]


def test_mig_profiles_are_rules_on_the_product(tmp_path: Path) -> None:
    text = SLICES + "    - {name: nvidia.com/mig-1g.5gb.me, replicas: 2}\n"
    found = convert(tmp_path, text + "flags: {migStrategy: mixed}\n")
    assert sharing(found).rules == (GpuRule("*MIG 1g.5gb+me", "nvidia.com/mig-1g.5gb.me", 2),)
    assert [note.split(":")[0] for note in found["notes"]] == ["flags.migStrategy"]


@pytest.mark.parametrize(
    ("resource", "profile"),
    [
        ("1g.24gb.gfx", "1g.24gb+gfx"),
        ("1g.5gb.me", "1g.5gb+me"),
        ("1g.24gb.me.all", "1g.24gb+me.all"),
        ("1g.24gb-me", "1g.24gb-me"),
        ("1c.2g.10gb", "1c.2g.10gb"),
        ("7g.80gb", "7g.80gb"),
    ],
)
def test_every_mig_profile_is_found_behind_its_resource(
    tmp_path: Path, resource: str, profile: str
) -> None:
    text = SLICES + f"    - {{name: nvidia.com/mig-{resource}, replicas: 2}}\n"
    found = convert(tmp_path, text)
    assert [rule.match for rule in sharing(found).rules] == [f"*MIG {profile}"]
    assert found["notes"] == []
    pattern = f'resources: {{mig: [{{pattern: "{resource}", name: small}}]}}\n'
    assert sharing(convert(tmp_path, SLICES + pattern)).rules[0].match == f"*MIG {profile}"


def test_an_unknown_mig_profile_is_noted(tmp_path: Path) -> None:
    text = SLICES + "    - {name: nvidia.com/mig-small, replicas: 2}\n"
    (note,) = convert(tmp_path, text)["notes"]
    assert "can match no GPU" in note


def test_patterns_of_products_are_rules_too(tmp_path: Path) -> None:
    text = (
        SLICES
        + "    - {name: v100, rename: v100s, replicas: 4}\n"
        + 'resources:\n  gpus:\n  - {pattern: "*V100*", name: v100}\n'
        + '  - {pattern: "*", name: gpu}\n'
        + '  mig:\n  - {pattern: "1g.5gb", name: mig-small}\n'
    )
    found = convert(tmp_path, text)
    assert sharing(found).rules == (
        GpuRule("*V100*", "nvidia.com/v100s", 4),
        GpuRule("*MIG 1g.5gb", "nvidia.com/mig-small", 1),
    )
    assert any(note.startswith("resources: NVIDIA's plugin ignores it") for note in found["notes"])


@pytest.mark.parametrize(
    ("strategy", "method"),
    [
        ("envvar", InjectionMethod.NVIDIA_RUNTIME),
        ("[volume-mounts]", InjectionMethod.VOLUME_MOUNTS),
        ("[cdi-cri, cdi-annotations]", InjectionMethod.CDI),
        ('"envvar,cdi-cri"', InjectionMethod.NVIDIA_RUNTIME),
        ("[new]", InjectionMethod.AUTO),
    ],
)
def test_how_containers_get_their_gpu(
    tmp_path: Path, strategy: str, method: InjectionMethod
) -> None:
    text = SLICES + f"flags:\n  plugin:\n    deviceListStrategy: {strategy}\n"
    assert sharing(convert(tmp_path, text)).injection.method is method


def test_several_resources_leave_the_method_to_sgpud(tmp_path: Path) -> None:
    text = SLICES + "    - {name: mig-1g.5gb, replicas: 2}\n"
    found = convert(tmp_path, text + "flags: {plugin: {deviceListStrategy: envvar}}\n")
    assert sharing(found).injection.method is InjectionMethod.AUTO
    assert any("would see the GPU of one" in note for note in found["notes"])


def test_xids_that_are_ignored_or_critical(tmp_path: Path) -> None:
    text = SLICES + "health:\n  ignoredXIDs: [13, 31]\n  criticalXIDs: [31, 48]\n"
    policy = parse(convert(tmp_path, text)["toml"], "sgpud.toml").health
    assert policy == parse("[health]\nignore = [13, 31]\nreset = [48]\n", "x").health


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ("imex: {required: true}", "imex"),
        ("other: 1", "other"),
        ("flags: {nvidiaDriverRoot: /run/nvidia/driver}", "flags.nvidiaDriverRoot"),
        ("flags: {gdsEnabled: true}", "flags.gdsEnabled"),
        ("flags: {gfd: {oneshot: true}}", "flags.gfd"),
        ("flags: {newFlag: 1}", "flags.newFlag"),
        ("flags: {migStrategy: some}", "flags.migStrategy"),
        ("flags: {plugin: {passDeviceSpecs: true}}", "flags.plugin.passDeviceSpecs"),
        ("flags: {plugin: {newFlag: 1}}", "flags.plugin.newFlag"),
        ("flags: []", "flags"),
        ("health: {disabled: true}", "health.disabled"),
        ("health: {criticalXIDs: all}", "health.criticalXIDs"),
        ("health: {ignoredXIDs: [x]}", "health.ignoredXIDs"),
        ("health: {newKey: 1}", "health.newKey"),
    ],
)
def test_ignored_settings_are_noted_with_their_place(tmp_path: Path, more: str, place: str) -> None:
    found = convert(tmp_path, f"{SLICES}{more}\n")
    assert [note.split(": ")[0] for note in found["notes"]] == [place]
    assert f"# - {place}: " in found["toml"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (SLICES.replace("timeSlicing", "mps"), "sharing.mps"),
        (SLICES.replace("timeSlicing", "other"), "sharing.other"),
        (SLICES.replace("10", "many"), "sharing.timeSlicing.resources[0].replicas"),
        (SLICES.replace("10", "20000"), "sharing.timeSlicing.resources[0].replicas"),
        (SLICES.replace("/gpu", "/tpu"), "sharing.timeSlicing.resources[0]"),
        (SLICES + "      rename: x\n", "sharing.timeSlicing.resources[0].rename"),
        (SLICES + "      colour: x\n", "sharing.timeSlicing.resources[0].colour"),
        (SLICES + "    strategy: packed\n", "sharing.timeSlicing.strategy"),
        ("version: v1", "sharing"),
        (SLICES.replace("v1", "v2"), "version"),
    ],
)
def test_differences_in_sharing_are_noted_with_their_place(
    tmp_path: Path, text: str, place: str
) -> None:
    found = convert(tmp_path, text)
    assert place in [note.split(": ")[0] for note in found["notes"]]


def test_mps_counts_as_shares_and_refuses_more_than_one(tmp_path: Path) -> None:
    found = sharing(convert(tmp_path, SLICES.replace("timeSlicing", "mps")))
    assert (found.default.factor, found.multiple) == (10, Multiple.REFUSE)
