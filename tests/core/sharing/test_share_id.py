from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from sgpud.core.json_checks import UUID
from sgpud.core.sharing.share_id import (
    LONGEST_ID,
    listed_bytes,
    memory_stem,
    parse_share_id,
    share_id,
)
from tests.core.values import small, some_numbers, uuid

# As long as the probe and a file of fake GPUs accept them: 55 characters.
uuids = st.from_regex(r"[0-9A-Za-z/._+\-]{1,55}", fullmatch=True).filter(UUID.fullmatch)


@given(uuids, st.integers(0, 99_999))
def test_an_id_gives_back_its_gpu_and_number(gpu: str, number: int) -> None:
    made = share_id(gpu, number)
    assert len(made) <= LONGEST_ID
    assert parse_share_id(made) == (gpu, number)


@given(st.text() | st.from_regex(r"(GPU|MIG)-[^\n]{0,70}::[0-9]{0,12}", fullmatch=True))
@example("")
@example("GPU-1::")
@example("GPU-1::01")
@example("GPU-1::-1")
@example("GPU-1::+1")
@example("GPU-1::1_0")
@example("GPU-1::1\n")
@example("GPU-1::\u0661")
@example("GPU-1::1::2")
@example("GPU-1_2::3")
@example("GPU-1::3")
@example("GPU-::1")
@example("gpu-1::3")
@example("GPU-1::9999999999")
@example("GPU-" + "1" * 60 + "::0")
def test_what_parses_is_exactly_what_we_make(text: str) -> None:
    parsed = parse_share_id(text)
    assert parsed is None or share_id(*parsed) == text


def test_garbage_never_parses() -> None:
    for text in ("", "GPU-1", "GPU-1::01", "GPU-1::x", "0::1", "GPU,1::0", "GPU-1::1 ", "GPU-é::1"):
        assert parse_share_id(text) is None
    assert parse_share_id("GPU-" + "1" * 60 + "::0") is None


@given(st.text(min_size=1).filter(lambda resource: not resource.endswith("/")))
def test_the_stem_of_memory_shares_is_no_uuid(resource: str) -> None:
    stem = memory_stem(resource)
    assert not UUID.fullmatch(stem)
    assert parse_share_id(share_id(stem, 7)) == (stem, 7)


@given(st.sets(st.integers(0, 2_000) | st.integers(9_990, 10_010) | st.integers(99_990, 100_010)))
def test_every_digit_of_every_id_is_counted(numbers: set[int]) -> None:
    each = 2 + 2 + 2 + len("Unhealthy") + 6
    expected = sum(each + len(share_id(uuid(1), number)) for number in numbers)
    assert listed_bytes(uuid(1), IntSet.of(numbers)) == expected


@given(some_numbers, small)
def test_more_shares_never_take_less(numbers: IntSet, one: int) -> None:
    more = numbers | IntSet.of([one])
    assert listed_bytes(uuid(1), more) >= listed_bytes(uuid(1), numbers)
