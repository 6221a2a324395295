"""`sgpud simulate`: files in, a document or a text out, and every mistake with its line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.cli.commands import EX_CONFIG
from sgpud.cli.main import main
from sgpud.cli.screens.simulation import MOST_ROWS, clock
from sgpud.cli.simulate.asked import LONGEST, TimeError, seconds
from sgpud.cli.simulate.nodes import parse_nodes
from sgpud.cli.simulate.pods import load_pods, parse_pods
from sgpud.cli.simulate.trace import TraceOptions, column_map, load_trace, parse_trace, scale_map
from sgpud.config.problems import ConfigError

GIB = 2**30
GPUS = '[[gpu]]\nproduct = "NVIDIA A100"\nmemory = "40GiB"\ncount = 2\n'
MEMORY = '[sharing]\nresource = "example.com/gpu-memory"\nshare_memory = "1GiB"\n'


def run(folder: Path, pods: str, *more: str, trace: bool = False) -> tuple[int, str, str]:
    (folder / "gpus.toml").write_text(GPUS)
    (folder / "sgpud.toml").write_text(MEMORY)
    (folder / "pods").write_text(pods)
    out, err = io.StringIO(), io.StringIO()
    listed = ["--trace", str(folder / "pods")] if trace else [str(folder / "pods")]
    config = [] if "--config" in more else ["--config", str(folder / "sgpud.toml")]
    files = ["--gpus", str(folder / "gpus.toml"), *config]
    return main(["simulate", *listed, *files, *more], {}, out, err), out.getvalue(), err.getvalue()


def document(folder: Path, pods: str, *more: str, trace: bool = False) -> dict[str, Any]:
    status, out, err = run(folder, pods, "--json", *more, trace=trace)
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_placed_pods_are_listed(tmp_path: Path) -> None:
    pods = '[[pod]]\nname = "a"\nmemory = "30GiB"\ncount = 3\nevery = "1m"\nduration = "1h"\n'
    (only,) = document(tmp_path, pods)["runs"]
    first, second, third = only["pods"]
    assert (first["name"], first["shares"], first["gpus"]) == ("a-1", 30, {"0": 30})
    assert (second["placed"], second["gpus"]) == (60.0, {"1": 30})
    assert third["end"] == "placed"
    assert third["waits"]
    assert third["placed"] >= 3600
    assert only["summary"]["placed"] == 3
    assert [gpu["peak_memory"] for gpu in only["gpus"]] == [30 * GIB, 30 * GIB]
    status, text, _ = run(tmp_path, pods)
    assert status == 0
    assert "Of 3 pods: 3 placed, 0 given up, 0 still waiting at the end." in text
    assert "node 0, GPU 0 x 30, from 0s until 1h00m" in text


def test_a_split_is_shown_with_its_reason(tmp_path: Path) -> None:
    pods = '[[pod]]\nmemory = "25GiB"\ncount = 2\n[[pod]]\nname = "late"\narrive = 5\nshares = 20\n'
    more = ("--set", "sharing.advertise=all", "--tries", "2")
    status, text, _ = run(tmp_path, pods, *more)
    assert status == 0
    assert "failed 2 times, last on node 0 at 6s" in text
    assert "no GPU has room for 20 memory shares" in text
    assert "given up" in text
    assert "Failures on a node: 2, of 1 pod (room 2)" in text
    assert "(fragmentation): 1" in text


def test_waiting_with_enough_free_memory_counts_as_fragmentation(tmp_path: Path) -> None:
    pods = "name,arrive,duration,shares\na,0,,25\nb,30,,25\nlate,60,,20\n"
    (only,) = document(tmp_path, pods, trace=True)["runs"]
    assert only["pods"][2]["end"] == "waiting"
    assert only["summary"]["fragmentation"] == 1
    assert only["summary"]["failures"] == 0
    _, text, _ = run(tmp_path, pods, trace=True)
    assert "(fragmentation): 1" in text
    assert "still waiting at the end" in text


def test_several_configurations_are_compared(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[sharing]\nduplication_factor = 1\n")
    configs = ("--config", str(tmp_path / "sgpud.toml"), "--config", str(tmp_path / "other.toml"))
    pods = '[[pod]]\nmemory = "10GiB"\ncount = 4\n'
    found = document(tmp_path, pods, *configs)
    assert [each["summary"]["placed"] for each in found["runs"]] == [4, 2]
    _, text, _ = run(tmp_path, pods, *configs)
    assert "Side by side" in text
    assert "given up               0" in text
    assert text.splitlines()[-1] == "* the best of its line"


def test_nodes_are_identical_and_the_defaults_apply_without_a_file(tmp_path: Path) -> None:
    pods = "[[pod]]\ncount = 4\n"
    found = document(tmp_path, pods, "--nodes", "2", "--set", "sharing.placement=packed")
    assert {(pod["node"]) for pod in found["runs"][0]["pods"]} == {0, 1}
    assert found["runs"][0]["settings"]["placement"] == "packed"


def test_of_many_pods_those_that_waited_are_listed(tmp_path: Path) -> None:
    pods = f"[[pod]]\nshares = 1\ncount = {MOST_ROWS + 60}\nduration = 5\n"
    _, text, _ = run(tmp_path, pods)
    assert "and 60 more: --json has every one" in text
    assert len(text.splitlines()) < MOST_ROWS + 30


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[[pod]]\nmemory = "10GB"\n', 2, 'pod.memory: "10GB" is not a size'),
        ("[[pod]]\nmemory = 10\n", 2, "pod.memory: is the number 10"),
        ("[[pod]]\narrive = 10\ndepart = 5\n", 3, "pod.depart: is before the pod arrives, at 10 s"),
        ("[[pod]]\nduration = -1\n", 2, "pod.duration: -1 is negative"),
        ('[[pod]]\nduration = "-1s"\n', 2, 'pod.duration: "-1s" is negative'),
        ("[[pod]]\narrive = nan\n", 2, "pod.arrive: nan is not a number"),
        ("[[pod]]\narrive = inf\n", 2, "pod.arrive: inf is too long"),
        ('[[pod]]\nduration = "5 days"\n', 2, "is not a time: the units are"),
        ("[[pod]]\nduration = true\n", 2, "pod.duration: true is not a time"),
        ("[[pod]]\nduration = 1\ndepart = 1\n", 2, "pod.duration: cannot be combined with depart"),
        ("[[pod]]\nshares = 0\n", 2, "pod.shares: 0 is out of range"),
        ("[[pod]]\nevery = 5\n", 2, "pod.every: has no effect without count"),
        ("[[pod]]\ncount = 600000\n[[pod]]\ncount = 600000\n", 4, "makes more than 1000000 pods"),
        ("[[pod]]\nshare = 4\n", 2, "pod.share: is an unknown key; did you mean shares?"),
        ('[[pod]]\nname = "\\u001b[2J"\n', 2, "pod.name:"),
        ("", 0, "pod: is missing"),
        ("[[pod]\n", 1, "is not TOML"),
        ("[[pod]]\n[[pod]]\nshares = 41\n", 2, "pod: 41 shares never fit"),
        ('[[pod]]\nmemory = "41GiB"\n', 1, "pod: 41 shares never fit"),
        ('[[pod]]\nmemory = "41GiB"\nshares = 1\n', 1, "memory: 41GiB is more than any GPU has"),
        ('[[pod]]\nresource = "example.com/other"\n', 1, "no GPU is shared as example.com/other"),
        ("[[pod]]\nshares = 1\ncontainers = [{}]\n", 3, "cannot be combined with shares"),
        ("[[pod]]\ncontainers = []\n", 2, "pod.containers: is empty"),
        ("[[pod]]\ncontainers = [{shares = 0}]\n", 2, "0 is out of range"),
        ("[[pod]]\ncontainers = [{shares = 40}, {shares = 40}, {}]\n", 1, "never fit together"),
        ('[[pod]]\nproducts = ["T4"]\n', 1, "products: no node has only GPUs that match"),
        ("[[pod]]\ngpus = 2\n", 1, "pod: 80 shares never fit"),
    ],
)
def test_each_error_in_a_list_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    status, out, err = run(tmp_path, text)
    assert (status, out) == (EX_CONFIG, "")
    assert said in err
    assert f"pods:{line}:" in err or not line
    assert len(err.splitlines()) == 1


def test_the_examples_in_the_documentation_give_the_documented_output(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "docs" / "examples"
    out = io.StringIO()
    (tmp_path / "empty.toml").write_text("")
    arguments = ["simulate", str(examples / "pods.toml"), "--gpus", str(examples / "gpus.toml")]
    for config, said in (
        ("largest", "Of 7 pods: 7 placed, 0 given up, 0 still waiting at the end."),
        ("all", "Of 7 pods: 6 placed, 1 given up, 0 still waiting at the end."),
    ):
        sets = ["--set", "sharing.share_memory=1GiB", "--set", f"sharing.advertise={config}"]
        assert main([*arguments, "--config", str(tmp_path / "empty.toml"), *sets], {}, out) == 0
        assert said in out.getvalue()
        assert said in (examples.parent / "simulate.md").read_text()


HEAD = "arrive,duration,shares,memory\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("arrive,depart\n0,5\n10,5\n", 3, "depart: is before the pod arrives"),
        (f"{HEAD}0,-5,1,\n", 2, 'duration: "-5" is negative'),
        (f"{HEAD}nan,5,1,\n", 2, 'arrive: "nan" is not a time'),
        (f"{HEAD}inf,5,1,\n", 2, 'arrive: "inf" is not a time'),
        (f"{HEAD},5,1,\n", 2, "arrive: is missing"),
        (f"{HEAD}0,5,1.5,\n", 2, 'shares: "1.5" is not a whole number from 1'),
        (f"{HEAD}0,5,1,11GB\n", 2, 'memory: "11GB" is not a size: write the unit as "GiB"'),
        (f"{HEAD}0,5,1,11\n", 2, 'memory: "11" is not a size: the unit is missing'),
        (f"{HEAD}0,5,1\n", 2, "has 3 fields, the first row names 4"),
        (f"{HEAD}0,5,1,\n\n0,5,41,\n", 4, "pod: 41 shares never fit"),
        ("arrive,shares\n0,1\n", 1, "one column of duration and depart is needed"),
        ("arrive,duration,depart\n0,1,1\n", 1, "one column of duration and depart is needed"),
        ("duration\n1\n", 1, "the column arrive is missing"),
        ("arrive,duration,arrive\n0,1,1\n", 1, "arrive comes twice"),
        ("arrive,duration,gpu\n0,1,1\n", 1, '"gpu" is an unknown column'),
        ("", 1, "the column arrive is missing"),
        (f'{HEAD}0,5,1,"11GiB\n', 2, "is not CSV"),
        ("arrive,duration,resource\n0,1,gpu\n", 2, 'resource: "gpu" has no domain'),
        ("arrive,duration,name\n0,1,\x1b[2J\n", 2, "name:"),
    ],
)
def test_each_error_in_a_trace_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    status, out, err = run(tmp_path, text, trace=True)
    assert (status, out) == (EX_CONFIG, "")
    assert said in err
    assert err.startswith("sgpud: ")
    assert f"pods:{line}:" in err


def test_every_kind_of_error_is_reported_once_with_its_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_trace(b"arrive,duration\n" + b"x,1\n" * 1000 + b"1,y\n", "t.csv")
    one, other = map(str, caught.value.problems)
    assert "likewise line 3, 4 and 997 more rows" in one
    assert other.startswith('t.csv:1002: duration: "y" is not a time')
    with pytest.raises(ConfigError) as caught:
        parse_pods("[[pod]]\narrive = -1\nduration = -1\n", "p.toml")
    assert [problem.line for problem in caught.value.problems] == [2, 3]


@pytest.mark.parametrize("load", [load_pods, load_trace])
def test_a_file_that_cannot_be_read_is_named(load: Any, tmp_path: Path) -> None:
    for name in ("absent", "."):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(tmp_path / name)


def test_a_trace_can_be_in_any_order_and_has_units() -> None:
    listed = parse_trace(
        b"\xef\xbb\xbfname, arrive,depart,memory\r\nb,2m,1h,\r\n,1.5,,1.5GiB\r\n", "t.csv"
    )
    first, second = listed.pods
    (asked,) = first.containers
    assert (first.name, first.at, first.duration, asked.memory) == (
        "pod-2",
        1.5,
        None,
        3 * GIB // 2,
    )
    assert (second.name, second.at, second.duration, second.line) == ("b", 120, 3480, 2)


def test_a_policy_that_loses_pods_does_not_rank_as_fast(tmp_path: Path) -> None:
    """A given-up pod waits to the end, and a failure counts as fragmentation."""
    pods = "name,arrive,duration,shares\na,0,100,25\nb,0,100,25\nc,1,10,20\nd,200,1,1\n"
    more = ("--tries", "1", "--set", "sharing.advertise=all")
    (only,) = document(tmp_path, pods, *more, trace=True)["runs"]
    found = only["summary"]
    assert (found["placed"], found["failed"], found["pods_with_failures"]) == (3, 1, 1)
    assert found["waited"] == 1
    assert found["longest_wait"] == only["end"] - 1
    assert found["mean_wait"] == (only["end"] - 1) / 4
    assert found["fragmentation"] == 1


def test_declared_memory_is_summed_not_used_memory(tmp_path: Path) -> None:
    pods = '[[pod]]\nmemory = "10GiB"\nshares = 20\nduration = 10\n'
    (only,) = document(tmp_path, pods)["runs"]
    assert max(gpu["peak_declared"] for gpu in only["gpus"]) == 20 * GIB
    assert max(gpu["peak_memory"] for gpu in only["gpus"]) == 10 * GIB


def test_a_foreign_trace_is_read_with_its_names_and_units() -> None:
    text = (
        b"id,creation_time,deletion_time,milli,gpu_model\n"
        b"p1,2026-11-29T09:00:00Z,2026-11-29T10:00:00Z,460.0,T4\n"
        b"p2,2026-11-29 09:00:30,2026-11-29 09:00:40,1e3,\n"
        b"p3,2026-11-29T09:00:40+00:00,,0,\n"
        b"p4,2026-11-29T11:00:00Z,,1,\n"
    )
    columns = column_map("id=name,arrival=creation_time,depart=deletion_time,shares=milli")
    found = parse_trace(text, "t.csv", TraceOptions(columns, scale_map("shares=10"), end=3600))
    assert [(p.name, p.at, p.duration, p.containers[0].shares) for p in found.pods] == [
        ("p1", 0.0, 3600.0, 46),
        ("p2", 30.0, 10.0, 100),
    ]
    assert found.notes == ("1 row without a share skipped",)


def test_times_are_divided_and_a_window_is_cut_out() -> None:
    text = b"arrive,duration\n1000,5000\n3000,1000\n9000,1000\n"
    options = TraceOptions(scale=scale_map("times=1000"), start=2, end=9)
    found = parse_trace(text, "t.csv", options)
    assert [(pod.at, pod.duration) for pod in found.pods] == [(1.0, 1.0)]


@pytest.mark.parametrize("text", ["", "name", "a=b", "name=", "times=0", "times=x", "arrive=name"])
def test_a_mapping_without_columns_is_an_error(text: str) -> None:
    for parse in (column_map, scale_map):
        with pytest.raises(ValueError):  # noqa: PT011 - argparse says what is wrong
            parse(text)


def test_the_limit_of_memory_shares_is_named_once_with_the_sum(tmp_path: Path) -> None:
    pods = "[[pod]]\nshares = 1\n[[pod]]\nshares = 2\n[[pod]]\nshares = 3\n"
    status, _, err = run(tmp_path, pods, "--set", "sharing.share_memory=100MiB")
    assert status == EX_CONFIG
    assert "sharing.share_memory: " in err
    assert "allow_large_status" in err
    assert len(err.splitlines()) == 1


def test_a_better_policy_is_named(tmp_path: Path) -> None:
    pods = "arrive,duration,shares\n0,50,20\n0,50,20\n1,10,40\n"
    places = '[sharing]\nmultiple = "same"\nplacement = "spread"\nduplication_factor = 40\n'
    (tmp_path / "places.toml").write_text(places)
    more = ("--config", str(tmp_path / "places.toml"))
    (only,) = document(tmp_path, pods, "--tries", "1", *more, trace=True)["runs"]
    assert only["summary"]["failed"] == 1
    assert any('placement = "packed" would give up 0 instead of 1' in one for one in only["notes"])
    assert any("nothing limits how much GPU memory" in one for one in only["notes"])


def test_failures_name_a_gpu_by_position_and_are_in_json_on_request(tmp_path: Path) -> None:
    pods = "arrive,duration,shares\n0,50,25\n0,50,25\n1,10,20\n"
    more = ("--tries", "1", "--set", "sharing.advertise=all")
    (brief,) = document(tmp_path, pods, *more, trace=True)["runs"]
    assert [pod["failure_count"] for pod in brief["pods"]] == [0, 0, 1]
    assert "failures" not in brief["pods"][2]
    (whole,) = document(tmp_path, pods, *more, "--verbose", trace=True)["runs"]
    assert "GPU-" not in whole["pods"][2]["failures"][0]["why"]


TWO_KINDS = "sn,model,gpu,memory,cpu\na,T4,2,15GiB,64\nb,V100M32,1,32GiB,96\nc,,0,,128\n"
PLACES = '[sharing]\nmultiple = "same"\nplacement = "packed"\n'


def of_two_kinds(folder: Path, pods: str, *more: str, trace: bool = False) -> dict[str, Any]:
    """Places on one node with two small GPUs and one with a large one."""
    (folder / "nodes.csv").write_text(TWO_KINDS)
    (folder / "places.toml").write_text(PLACES)
    (folder / "pods").write_text(pods)
    out = io.StringIO()
    listed = ["--trace", str(folder / "pods")] if trace else [str(folder / "pods")]
    files = ["--nodes-csv", str(folder / "nodes.csv"), "--config", str(folder / "places.toml")]
    assert main(["simulate", *listed, *files, "--json", *more], {}, out) == 0
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_nodes_that_differ_come_from_a_table(tmp_path: Path) -> None:
    pods = "[[pod]]\nshares = 60\ncount = 3\n[[pod]]\nshares = 60\n"
    (only,) = of_two_kinds(tmp_path, pods)["runs"]
    assert [(gpu["node"], gpu["product"]) for gpu in only["gpus"]] == [
        (0, "T4"),
        (0, "T4"),
        (1, "V100M32"),
    ]
    assert [pod["end"] for pod in only["pods"]] == ["placed"] * 3 + ["failed"]


def test_nodes_that_differ_come_from_several_files(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(GPUS.replace("count = 2", "count = 1"))
    more = ("--gpus", str(tmp_path / "one.toml"), "--nodes", "2", "--nodes", "1")
    (only,) = document(tmp_path, "[[pod]]\n", *more)["runs"]
    assert [gpu["node"] for gpu in only["gpus"]] == [0, 0, 1, 1, 2]
    status, _, err = run(tmp_path, "[[pod]]\n", *more, "--nodes", "3")
    assert status == EX_CONFIG
    assert "--nodes: is given 3 times for 2 --gpus" in err


def test_a_pod_goes_to_nodes_with_one_of_its_products(tmp_path: Path) -> None:
    pods = "arrive,duration,shares,products\n0,,10,V100M16|V100M32\n0,,10,t4\n0,,95,T4|V100M32\n"
    (only,) = of_two_kinds(tmp_path, pods, trace=True)["runs"]
    assert [pod["node"] for pod in only["pods"]] == [1, 0, 0]


def test_whole_gpus_are_asked_for_beside_parts_of_one(tmp_path: Path) -> None:
    pods = "arrive,duration,gpus,shares\n0,10,1,40\n1,10,2,100\n2,10,0,5\n2,5,2,\n"
    found = of_two_kinds(tmp_path, pods, trace=True)["runs"][0]
    part, whole, alone = found["pods"]
    assert (part["shares"], whole["shares"], alone["shares"]) == (40, 200, 200)
    assert whole["gpus"] == alone["gpus"] == {"0": 100, "1": 100}
    assert found["notes"][0] == "1 row without a share skipped"


def test_the_containers_of_a_pod_are_placed_one_by_one(tmp_path: Path) -> None:
    pods = '[[pod]]\nproducts = ["T4"]\ncontainers = [{shares = 70}, {shares = 60}, {}]\n'
    (only,) = of_two_kinds(tmp_path, pods)["runs"]
    (pod,) = only["pods"]
    assert [each["gpus"] for each in pod["containers"]] == [{"0": 70}, {"1": 60}, {"0": 1}]
    assert (pod["shares"], pod["gpus"]) == (131, {"0": 71, "1": 60})


def test_a_pod_of_which_one_container_fails_holds_nothing(tmp_path: Path) -> None:
    pods = (
        "[[pod]]\nshares = 60\ncount = 2\n[[pod]]\narrive = 1\n"
        "containers = [{shares = 40}, {shares = 41}]\n[[pod]]\narrive = 3\nshares = 40\n"
    )
    (tmp_path / "one.csv").write_text("product,gpus,memory\nT4,2,15GiB\n")
    more = ("--nodes-csv", str(tmp_path / "one.csv"), "--tries", "1")
    (only,) = of_two_kinds(tmp_path, pods, *more)["runs"]
    assert [pod["end"] for pod in only["pods"]] == ["placed", "placed", "waiting", "placed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,gpu\nT4,1\n", "nodes.csv:1: the column memory is missing"),
        ("product,gpus,memory\nT4,x,1GiB\n", 'nodes.csv:2: gpus: "x" is not a whole number'),
        ("product,gpus,memory\nT4,1,15\n", 'nodes.csv:2: memory: "15" is not a size'),
        ("product,gpus,memory\n,1,15GiB\n", "nodes.csv:2: product: is missing"),
        ("product,gpus,memory\nT4,1,0\n", "nodes.csv:2: memory: must be more than 0"),
        ("product,gpus,memory\nT4,65,1GiB\n", "has more than 64 GPUs"),
        ("product,gpus,memory\nT4,0,1GiB\n", "has no node with a GPU"),
    ],
)
def test_each_error_in_a_table_of_nodes_is_reported(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_nodes(text.encode(), "nodes.csv")
    assert said in str(caught.value)


def test_nodes_have_to_be_named(tmp_path: Path) -> None:
    err = io.StringIO()
    assert main(["simulate", str(tmp_path / "pods")], {}, io.StringIO(), err) == EX_CONFIG
    assert "--gpus: is missing" in err.getvalue()


def test_baselines_are_played_beside_the_configuration(tmp_path: Path) -> None:
    """A scheduler that sees every GPU places the last pod, first-fit and best-fit differ."""
    pods = "arrive,duration,shares\n0,,25\n1,,30\n2,,10\n3,,15\n"
    more = ("--policy", "best-fit", "--policy", "first-fit", "--policy", "random")
    found = document(tmp_path, pods, *more, trace=True)["runs"]
    assert [run["configuration"] for run in found][1:] == ["best-fit", "first-fit", "random"]
    best, first = found[1]["pods"], found[2]["pods"]
    assert [pod["gpus"] for pod in best] == [{"0": 25}, {"1": 30}, {"1": 10}, {"0": 15}]
    assert [pod["gpus"] for pod in first] == [{"0": 25}, {"1": 30}, {"0": 10}, {}]
    assert found[3] == document(tmp_path, pods, *more, trace=True)["runs"][3]
    _, text, _ = run(tmp_path, pods, *more, trace=True)
    assert "placement best-fit, by a scheduler that sees every GPU" in text


def test_a_list_repeats_a_pod_as_often_as_it_says() -> None:
    text = '[[pod]]\nname = "a"\narrive = 5\ndepart = 65\ncount = 2\nevery = 0.5\n[[pod]]\n'
    found = [(pod.name, pod.at, pod.duration) for pod in parse_pods(text, "p").pods]
    assert found == [("pod-2", 0, None), ("a-1", 5, 60), ("a-2", 5.5, 60)]


@pytest.mark.parametrize("number", ["0", "-1", "x", "1001", "1.5"])
def test_nodes_are_a_whole_number(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "p", "--gpus", "g", f"--nodes={number}"], {})
    assert "not a whole number from 1 to 1000" in capsys.readouterr().err


@given(st.floats() | st.integers() | st.text(max_size=12) | st.none() | st.booleans())
def test_a_time_is_a_number_of_seconds_in_range_or_an_error(value: object) -> None:
    try:
        found = seconds(value)
    except TimeError:
        return
    assert 0 <= found <= LONGEST


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_trace_gives_pods_or_an_error(raw: bytes) -> None:
    text = b"arrive,duration,name,memory\n" + raw
    try:
        listed = parse_trace(text, "t.csv")
    except ConfigError:
        return
    assert all(pod.at >= 0 for pod in listed.pods)


@given(st.text(max_size=100))
def test_any_list_gives_pods_or_an_error(text: str) -> None:
    try:
        listed = parse_pods("[[pod]]\n" + text, "p.toml")
    except ConfigError:
        return
    assert listed.pods


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "0s"), (12.5, "12.5s"), (59.9996, "60s"), (60, "1m00s"), (200, "3m20s"),
        (3600, "1h00m"), (7500, "2h05m"), (86400, "1d00h"), (273600, "3d04h"),
    ],
)  # fmt: skip
def test_times_are_readable(time: float, text: str) -> None:
    assert clock(time) == text
