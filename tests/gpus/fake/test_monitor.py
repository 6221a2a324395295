"""A file of fake GPUs gives the same GPUs every time, or every problem with its line."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.config.problems import ConfigError
from sgpud.core.gpu.gpu import Gpu, matches
from sgpud.core.json_checks import UUID
from sgpud.core.sharing.share_id import parse_share_id, share_id
from sgpud.gpus.fake.file import load, parse_fake_gpus

FILE = Path(__file__).parents[1] / "fake.toml"
T4 = '[[gpu]]\nproduct = "Tesla T4"\nmemory = "15GiB"\n'


def gpus(text: str) -> tuple[Gpu, ...]:
    return parse_fake_gpus(text, "sim.toml").gpus


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_fake_gpus(text, "sim.toml")
    return str(caught.value).splitlines()


def test_the_gpus_are_those_of_the_file() -> None:
    found = load(FILE).gpus
    assert [(gpu.index, gpu.product, (gpu.memory or 0) >> 30) for gpu in found] == [
        (0, "NVIDIA A100-SXM4-40GB", 40),
        (1, "NVIDIA A100-SXM4-40GB", 40),
        (2, "Tesla T4", 15),
        (3, "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 20),
        (3, "NVIDIA A100-SXM4-40GB MIG 2g.10gb", 10),
        (3, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5),
    ]
    assert all(gpu.fake for gpu in found)
    assert (found[0].reserved, found[0].numa, found[0].compute) == (2**29, 0, (8, 0))
    assert {gpu.physical for gpu in found[3:]} == {found[3].physical}
    assert load(FILE) == load(FILE)


def test_uuids_do_not_depend_on_the_rest_of_the_file() -> None:
    assert [gpu.uuid for gpu in gpus(T4 * 3)][:2] == [gpu.uuid for gpu in gpus(T4 + "count = 2\n")]


def test_uuids_look_real_and_make_valid_share_ids() -> None:
    for gpu in load(FILE).gpus:
        assert UUID.fullmatch(gpu.uuid)
        assert len(gpu.uuid) == len("GPU-00000000-0000-0000-0000-000000000000")
        assert parse_share_id(share_id(gpu.uuid, 9999)) == (gpu.uuid, 9999)


def test_every_gpu_can_be_matched_in_a_list() -> None:
    found = gpus(T4 + "count = 64\n" + (T4 + "count = 64\n") * 4)
    assert len({gpu.uuid for gpu in found}) == len({gpu.pci for gpu in found}) == 320
    assert all(matches(gpu.pci, gpu) for gpu in found)


def test_a_uuid_can_be_given() -> None:
    assert gpus(T4 + 'uuid = "GPU-mine"\n')[0].uuid == "GPU-mine"


def test_a_file_may_list_no_gpus() -> None:
    assert gpus("gpu = []") == ()


def test_an_instance_has_no_more_memory_than_its_gpu() -> None:
    assert gpus(T4 + 'mig = ["7g.80gb"]\n')[0].memory == 15 * 2**30


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('memory = "15GB"', '3: gpu.memory: "15GB" is not a size: write the unit as "GiB"'),
        ('memory = "0"', "3: gpu.memory: "),
        ("memory = 15", "3: gpu.memory: is the number 15; expected a size"),
        ('memory = "1GiB"\nproduct = ""', "4: gpu.product: "),
        ('memory = "1GiB"\nmodel = "x"', "4: gpu.model: is an unknown key"),
        ('memory = "1GiB"\ncount = 0', "4: gpu.count: "),
        ('memory = "1GiB"\ncount = 65', "4: gpu.count: "),
        ('memory = "1GiB"\nnuma = -1', "4: gpu.numa: "),
        ('memory = "1GiB"\ncompute = 8.0', "4: gpu.compute: "),
        ('memory = "1GiB"\ncompute = "8"', "4: gpu.compute: "),
        ('memory = "1GiB"\nuuid = "MIG-1"', "4: gpu.uuid: "),
        ('memory = "1GiB"\nuuid = "GPU-1::2"', "4: gpu.uuid: "),
        ('memory = "1GiB"\nuuid = "GPU-1"\ncount = 2', "4: gpu.uuid: is for one GPU"),
        ('memory = "1GiB"\nreserved = "1GiB"', "4: gpu.reserved: leaves no memory"),
        ('memory = "1GiB"\nmig = ["1g"]', "4: gpu.mig: "),
        ('memory = "1GiB"\nmig = ["4g.20gb", "4g.20gb"]', "4: gpu.mig: takes 8 compute slices"),
        ("", "1: gpu.memory: is missing"),
        ("memory = ", "3:10: is not TOML"),
    ],
)
def test_each_problem_names_file_line_and_key(line: str, text: str) -> None:
    # The product may be set by the line itself.
    start = "[[gpu]]\n" + ("# no product\n" if "product" in line else 'product = "T4"\n')
    (problem,) = problems(start + line + "\n")
    assert problem.startswith(f"sim.toml:{text}")


def test_all_problems_are_reported_at_once() -> None:
    found = problems('[[gpu]]\nproduct = 1\nmemory = "x"\n[[gpu]]\nmemory = "1GiB"\ncount = "2"\n')
    assert [line.split(" ")[0] for line in found] == [
        "sim.toml:2:",
        "sim.toml:3:",
        "sim.toml:6:",
        "sim.toml:4:",
    ]


def test_two_gpus_with_one_uuid_are_a_problem() -> None:
    (problem,) = problems((T4 + 'uuid = "GPU-1"\n') * 2)
    assert problem.startswith("sim.toml:8: gpu.uuid: ")


def test_a_file_that_is_absent_or_too_large_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    large = tmp_path / "large.toml"
    large.write_text("#" * 300_000)
    with pytest.raises(ConfigError, match="is 300000 bytes long"):
        load(large)


def outcome(text: str | bytes) -> str:
    try:
        return str(parse_fake_gpus(text, "sim.toml"))
    except ConfigError as error:
        return str(error)


NAMES = ["product", "memory", "mig", "uuid", "count", "at", "gpu", "xid", "lost", "used", "driver"]
WORDS = st.sampled_from(
    ["[[gpu]]", "[[event]]", *NAMES, "=", '"1GiB"', '"1g.5gb"', '"1s"', "true", "0", "[", "]"]
)
TEXTS = st.lists(WORDS | st.text(max_size=5), max_size=30).map(" ".join)


@given(TEXTS | st.binary(max_size=100) | st.text())
@example("gpu = 1")
@example("gpu = [1]")
@example("[gpu]")
@example(T4 + "mig = [1]")
@example(T4 + "mig = [[]]")
@example(T4 + "[[event]]")
@example(T4 + "[event]")
@example(T4 + '[[event]]\nat = "1s"\ngpu = "0"\nxid = true')
def test_any_text_is_a_list_of_fake_gpus_or_a_config_error(text: str | bytes) -> None:
    assert outcome(text)
