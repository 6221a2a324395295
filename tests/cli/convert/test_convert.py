"""The command: GKE's JSON, ConfigMaps, what is refused, and what it prints."""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.cli.convert.command import run
from sgpud.cli.convert.draft import ConvertError, document
from sgpud.cli.convert.gke import convert_gke
from sgpud.cli.convert.nvidia import convert_nvidia
from sgpud.cli.main import main
from sgpud.config.load import parse
from sgpud.core.sharing.rules import InjectionMethod, Multiple, ShareTerms

SLICES = "version: v1\nsharing: {timeSlicing: {resources: [{name: gpu, replicas: 7}]}}\n"


def config_map(**entries: str) -> str:
    """A ConfigMap, as it is applied."""
    texts = "".join(
        f"  {name}: |-\n{textwrap.indent(text, '    ')}" for name, text in entries.items()
    )
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: slices\ndata:\n{texts}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "given"


def test_gkes_time_sharing(file: Path) -> None:
    file.write_text(
        '{"gpuPartitionSize": "", "GPUSharingConfig":'
        ' {"GPUSharingStrategy": "time-sharing", "MaxSharedClientsPerGPU": 12}}'
    )
    found = run(str(file))
    sharing = parse(found["toml"], "sgpud.toml").sharing
    assert sharing.default == ShareTerms("nvidia.com/gpu", 12)
    assert (sharing.multiple, sharing.injection.method) == (
        Multiple.REFUSE,
        InjectionMethod.DEVICE_NODES,
    )
    assert found["notes"] == []


def test_pods_on_gke_keep_their_driver_folder(file: Path) -> None:
    file.write_text('{"MaxTimeSharedClientsPerGPU": 2}')
    converted = parse(run(str(file))["toml"], "sgpud.toml").sharing.injection
    overlay = Path(__file__).parents[3] / "deploy" / "overlays" / "gke" / "sgpud.toml"
    assert converted == parse(overlay.read_text(), "sgpud.toml").sharing.injection


def pool(*accelerators: object) -> str:
    """A node pool, as gcloud prints it."""
    return json.dumps({
        "name": "gpus", "initialNodeCount": 1,
        "config": {"machineType": "g2-standard-8", "accelerators": accelerators},
    })  # fmt: skip


L4 = {
    "acceleratorCount": "1",
    "acceleratorType": "nvidia-l4",
    "gpuDriverInstallationConfig": {"gpuDriverVersion": "DEFAULT"},
    "gpuSharingConfig": {"gpuSharingStrategy": "TIME_SHARING", "maxSharedClientsPerGpu": "5"},
}


def test_a_node_pool_of_gke(file: Path) -> None:
    file.write_text(pool(L4))
    found = run(str(file))
    assert parse(found["toml"], "sgpud.toml").sharing.default == ShareTerms("nvidia.com/gpu", 5)
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("accelerators", "places"),
    [
        ((L4, L4), ["config.accelerators"]),
        ((), ["the file"]),
        ((3,), ["config.accelerators[0]", "the file"]),
        (({**L4, "gpuPartitionSize": "1g.5gb"},), ["gpuPartitionSize"]),
        (({"gpuSharingConfig": {"gpuSharingStrategy": "MPS", "maxSharedClientsPerGpu": "2"}},),
         ["gpuSharingConfig.gpuSharingStrategy"]),
    ],
)  # fmt: skip
def test_differences_of_a_node_pool_are_noted(
    file: Path, accelerators: tuple[object, ...], places: list[str]
) -> None:
    file.write_text(pool(*accelerators))
    assert [note.split(": ")[0] for note in run(str(file))["notes"]] == places


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"MaxTimeSharedClientsPerGPU": 2}', []),
        ('{"GPUPartitionSize": "1g.5gb"}', ["GPUPartitionSize", "the file"]),
        ('{"GPUSharingConfig": {"GPUSharingStrategy": "mps", "MaxSharedClientsPerGPU": 2}}',
         ["GPUSharingConfig.GPUSharingStrategy"]),
        ('{"GPUSharingConfig": {"GPUSharingStrategy": "new", "MaxSharedClientsPerGPU": 2}}',
         ["GPUSharingConfig.GPUSharingStrategy"]),
        ('{"GPUSharingConfig": {"MaxSharedClientsPerGPU": "many"}}',
         ["GPUSharingConfig.MaxSharedClientsPerGPU", "the file"]),
        ('{"GPUSharingConfig": {"Other": 1, "MaxSharedClientsPerGPU": 2}, "More": 1}',
         ["GPUSharingConfig.Other", "More"]),
        ('{"GPUSharingConfig": 3}', ["GPUSharingConfig", "the file"]),
    ],
)  # fmt: skip
def test_differences_from_gke_are_noted(file: Path, text: str, places: list[str]) -> None:
    file.write_text(text)
    assert [note.split(": ")[0] for note in run(str(file))["notes"]] == places


def test_a_config_map_with_one_entry(file: Path) -> None:
    file.write_text(config_map(any=SLICES))
    assert parse(run(str(file))["toml"], "x").sharing.default == ShareTerms("nvidia.com/gpu", 7)


def test_a_config_map_with_several_needs_a_name(file: Path) -> None:
    file.write_text(config_map(a=SLICES, b=SLICES.replace("7", "8")))
    with pytest.raises(ConvertError, match=r"choose one with --entry: slices/a, slices/b"):
        run(str(file))
    with pytest.raises(ConvertError, match="has no entry c; its entries: slices/a, slices/b"):
        run(str(file), "c")
    for name in ("b", "slices/b"):
        assert parse(run(str(file), name)["toml"], "x").sharing.default.factor == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a known configuration"),
        (b"- a\n", "is not a known configuration"),
        (b"a: 1\n", "is not a known configuration"),
        (b"version: *a\n", "line 1"),
        (b"{\n", "line 2"),
        (b"{" + b'"version": ' + b"[" * 100_000, "line 1"),
        (b"\xff", "not UTF-8"),
        (b"#" * (1 << 22) + b"#", "larger than"),
        (SLICES.replace("gpu", "GPU?").encode(), ""),
        (b"kind: ConfigMap\ndata: 3\n", "is not a known configuration"),
        (SLICES.replace("gpu,", "gpu, rename: 'x y',").encode(), "cannot be converted"),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    status = main(["convert", str(file)], {}, out, err)
    if said:
        assert (status, out.getvalue()) == (1, "")
        assert str(file) in err.getvalue()
        assert said in err.getvalue()
    else:
        assert "matches no known kind of GPU" in " ".join(out.getvalue().split())


KEPT = """\
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: plugin, namespace: gpu-operator}
  data:
    any: |+
      version: v1
      sharing:
        timeSlicing:
          resources:
          - name: nvidia.com/gpu
            replicas: 7

    folded: "version: v1\\nsharing:\\n  timeSlicing:\\n    resources:\\n    - name:\\
      \\ nvidia.com/gpu\\n      replicas: 8\\n"
    indented: |2-
        # this comment is indented more than the text is
      version: v1
      sharing: {timeSlicing: {resources: [{name: gpu, replicas: 9}]}}
    broken: "version: [v1"
    empty: ""
- apiVersion: v1
  kind: Namespace
  metadata: {name: gpu-operator}
"""


@pytest.mark.parametrize(("entry", "factor"), [("any", 7), ("folded", 8), ("indented", 9)])
def test_the_output_of_kubectl_is_read_entry_by_entry(file: Path, entry: str, factor: int) -> None:
    file.write_text(KEPT)
    found = run(str(file), entry)
    assert parse(found["toml"], "x").sharing.default.factor == factor
    assert found["notes"] == []


def test_an_unreadable_entry_fails_only_if_requested(file: Path) -> None:
    file.write_text(KEPT)
    with pytest.raises(ConvertError, match="entry plugin/broken cannot be read: line 2"):
        run(str(file), "broken")
    with pytest.raises(ConvertError, match="one with --entry: plugin/any, plugin/folded, plug"):
        run(str(file))


def test_the_only_configuration_is_converted_and_other_entries_are_noted(file: Path) -> None:
    file.write_text(config_map(any=SLICES, readme="Read this first.\n", bad="a: [\n"))
    found = run(str(file))
    assert parse(found["toml"], "x").sharing.default.factor == 7
    assert [note.split(": ")[0] for note in found["notes"]] == ["slices/readme", "slices/bad"]


@pytest.mark.parametrize(
    "text",
    [
        "config:\n  map:\n    default: |-\n" + textwrap.indent(SLICES, " " * 6),
        (
            "devicePlugin: {config: {name: slices, data: {default: {version: v1, sharing:"
            " {timeSlicing: {resources: [{name: gpu, replicas: 7}]}}}}}}"
        ),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: gpus}\n---\n" + config_map(x=SLICES),
        "\ufeff" + SLICES,
        "replicas: &few 7\n---\n" + SLICES,
        (
            "version: v1\nflags: &f {migStrategy: none}\n"
            "sharing: {timeSlicing: {resources: [&r {name: gpu, replicas: 7}]}}"
        ),
    ],
    ids=["chart", "operator's chart", "documents", "BOM", "other document", "anchors"],
)
def test_every_kind_of_container_document_is_converted(file: Path, text: str) -> None:
    file.write_text(text)
    assert parse(run(str(file))["toml"], "x").sharing.default == ShareTerms("nvidia.com/gpu", 7)


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SLICES.encode())))
    out = io.StringIO()
    assert main(["convert", "-"], {}, out) == 0
    assert "duplication_factor = 7" in out.getvalue()


def test_a_billion_laughs_file_is_refused_at_once(file: Path) -> None:
    rows = [f"v{n}: &v{n} [{','.join([f'*v{n - 1}'] * 9)}]" for n in range(1, 31)]
    file.write_text("\n".join(["v0: &v0 [lol]", *rows, SLICES]))
    with pytest.raises(ConvertError, match="cannot be read: line 6: more than"):
        run(str(file))


def test_an_entry_needs_a_config_map(file: Path) -> None:
    file.write_text(SLICES)
    with pytest.raises(ConvertError, match="leave --entry out"):
        run(str(file), "any")


def test_the_command_prints_a_file_that_check_config_accepts(file: Path) -> None:
    file.write_text(SLICES)
    out, checked = io.StringIO(), io.StringIO()
    assert main(["convert", str(file)], {}, out) == 0
    written = file.with_name("sgpud.toml")
    written.write_text(out.getvalue())
    assert main(["check-config", str(written)], {}, checked) == 0
    assert "is valid" in checked.getvalue()


def test_as_json_it_prints_the_same_and_the_notes(file: Path) -> None:
    file.write_text(SLICES + "imex: {required: true}\n")
    out = io.StringIO()
    assert main(["convert", "--json", str(file)], {}, out) == 0
    found = json.loads(out.getvalue())
    assert parse(found["toml"], "x").sharing.default.factor == 7
    assert [note.split(":")[0] for note in found["notes"]] == ["imex"]


# Whatever a file holds, the result is a text or one of our errors. --------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
KEYS = st.sampled_from([
    *("version", "flags", "plugin", "deviceListStrategy", "migStrategy", "resources", "gpus"),
    *("sharing", "timeSlicing", "mps", "name", "rename", "devices", "replicas", "pattern"),
    *("health", "ignoredXIDs", "criticalXIDs", "GPUSharingConfig", "MaxSharedClientsPerGPU"),
    *("config", "accelerators"),
])  # fmt: skip
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=12,
    ),
)


@pytest.mark.slow
@given(DOCUMENTS)
@example({"health": {"ignoredXIDs": [-1, True, 10**30]}})
@example({"flags": {"plugin": {"deviceListStrategy": [["envvar"]]}}})
def test_every_document_becomes_a_text(given_document: dict[str, object]) -> None:
    for convert in (convert_nvidia, convert_gke):
        assert document(convert(given_document)).startswith("# Converted from")
