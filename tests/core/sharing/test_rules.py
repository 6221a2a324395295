from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.sharing.rules import DEFAULT_RESOURCE, GpuRule, ShareTerms, Sharing
from tests.core.values import OTHER, POOL, gpu, mig, sharing, uuid

T4, A100 = gpu(0, "Tesla T4"), gpu(1, "NVIDIA A100-SXM4-40GB")
entries = st.sampled_from(["*", "0", "1", uuid(0), uuid(1), "*A100*", "Tesla*", "nothing"])


def test_without_a_word_every_gpu_has_a_hundred_shares_of_the_default_resource() -> None:
    assert Sharing().terms(T4) == ShareTerms(DEFAULT_RESOURCE, 100)
    assert Sharing().resources == (DEFAULT_RESOURCE,)


@given(st.lists(entries), st.lists(entries))
def test_deny_wins_and_nothing_is_shared_that_is_not_allowed(
    allow: list[str], deny: list[str]
) -> None:
    config = sharing(allow=tuple(allow), deny=tuple(deny))
    for one in (T4, A100):
        allowed = Sharing(allow=tuple(allow)).allows(one)
        denied = Sharing(allow=tuple(deny)).allows(one)
        assert config.allows(one) == (allowed and not denied)
        assert (config.terms(one) is None) == (not config.allows(one))


def test_the_first_rule_that_matches_wins_and_leaves_the_rest_to_the_default() -> None:
    config = sharing(
        8,
        GpuRule("*A100*", resource=OTHER),
        GpuRule("NVIDIA*", factor=3),
        GpuRule("Tesla*", factor=5),
    )
    assert config.terms(A100) == ShareTerms(OTHER, 8)
    assert config.terms(T4) == ShareTerms(POOL, 5)
    assert config.resources == (POOL, OTHER)


def test_a_rule_for_a_physical_gpu_is_one_for_its_instances() -> None:
    config = sharing(8, GpuRule(uuid(1), factor=2))
    assert config.terms(mig(A100, 3)) == ShareTerms(POOL, 2)


def test_entries_that_mean_no_gpu_are_named_with_their_key() -> None:
    config = sharing(
        4, GpuRule("H100*"), GpuRule("Tesla*"), allow=("*", "7"), deny=(uuid(9), "Tesla T4")
    )
    assert config.unmatched([T4, A100]) == (
        ("gpus.allow", "7"),
        ("gpus.deny", uuid(9)),
        ("gpu.match", "H100*"),
    )
    assert sharing(allow=("*",)).unmatched([]) == ()
