from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.gpu.gpu import matches, pci_address
from tests.core.values import gpu, mig, uuid

A100 = gpu(3)
INSTANCE = mig(A100, 1)


@pytest.mark.parametrize(
    "text", ["0000:3b:00.0", "00000000:3B:00.0", "3b:00.0", "3b:00", "0000:3b:00", "0000:3B:00"]
)
def test_every_usual_way_to_write_a_pci_address_is_one(text: str) -> None:
    assert pci_address(text) == "0000:3b:00.0"


@pytest.mark.parametrize("text", ["", "3", "3b", "3b:00.8", "0:3b:00.0", "3b:00.0 ", "zz:00.0"])
def test_an_invalid_pci_address_is_none(text: str) -> None:
    assert pci_address(text) is None


def test_a_domain_beyond_four_digits_stays_whole() -> None:
    assert pci_address("00010000:3b:00.0") == "10000:3b:00.0"


@given(st.text())
def test_any_text_is_an_address_that_reads_itself_or_none(text: str) -> None:
    found = pci_address(text)
    assert found is None or pci_address(found) == found


@pytest.mark.parametrize(
    "entry",
    ["*", uuid(3), "3", "03", "0000:03:00.0", "03:00.0", "NVIDIA A100*", "nvidia a100-sxm4-40gb"],
)
def test_an_entry_means_a_gpu_in_each_of_four_ways(entry: str) -> None:
    assert matches(entry, A100)


@pytest.mark.parametrize("entry", [uuid(4), "4", "04:00.0", "NVIDIA H100*", "A100", "GPU-*", ""])
def test_an_entry_for_others_does_not_mean_a_gpu(entry: str) -> None:
    assert not matches(entry, A100)


def test_a_physical_gpu_stands_for_its_instances_and_not_the_other_way_round() -> None:
    assert matches(A100.uuid, INSTANCE)
    assert matches(INSTANCE.uuid, INSTANCE)
    assert not matches(INSTANCE.uuid, A100)
    assert (INSTANCE.physical, A100.physical) == (A100.uuid, A100.uuid)


def test_gpus_are_ordered_by_index_then_by_instance() -> None:
    other = gpu(4)
    expected = [A100, mig(A100, 1), mig(A100, 2, 0), mig(A100, 2, 1), mig(A100, 11), other]
    for mixed in permutations(expected):
        assert sorted(mixed, key=lambda one: one.order) == expected


@given(st.text())
def test_no_entry_is_an_error(entry: str) -> None:
    assert matches(entry, A100) in (True, False)
