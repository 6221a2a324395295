from attrs import evolve

from sgpud.core.allocation.allocate import SHIFT, index
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from tests.core.values import checkpoint, gpu, holder, ids, node, planned, pool_of, sharing, uuid


def test_every_listed_id_has_its_place_and_no_other_has_one() -> None:
    pool = pool_of(planned(node(sharing(2), [gpu(0), gpu(1)])))
    assert index(pool).places == {
        ids(0, 0)[0]: 0,
        ids(0, 1)[0]: 1,
        ids(1, 0)[0]: 1 << SHIFT,
        ids(1, 1)[0]: (1 << SHIFT) + 1,
    }


def test_draining_shares_have_a_place() -> None:
    begun = node(sharing(2), [gpu(0)])
    shrunk = advance(evolve(begun, sharing=sharing(1)), 1.0, 1001.0)
    assert set(index(pool_of(planned(shrunk))).places) == set(ids(0, 0, 1))


def test_it_is_kept_while_the_ids_are_the_same() -> None:
    begun = node(sharing(2), [gpu(0)])
    first = index(pool_of(planned(begun)))
    held = evolve(begun, checkpoint=checkpoint(holder({uuid(0): IntSet.of([1])})))
    assert index(pool_of(planned(advance(held, 1.0, 1001.0))), first) is first
    grown = advance(evolve(begun, sharing=sharing(3)), 1.0, 1001.0)
    assert index(pool_of(planned(grown)), first) is not first


def test_a_gpu_of_another_place_makes_another_index() -> None:
    pool = pool_of(planned(node(sharing(2), [gpu(0), gpu(1)])))
    turned = evolve(pool, groups=tuple(reversed(pool.groups)))
    again = index(turned, index(pool))
    assert again.places[ids(1, 0)[0]] == 0


def test_the_longest_number_keeps_its_gpu() -> None:
    known = checkpoint(holder({uuid(1): IntSet.of([999_999_999])}))
    pool = pool_of(planned(node(sharing(1), [gpu(0), gpu(1)], known)))
    assert index(pool).places[ids(1, 999_999_999)[0]] >> SHIFT == 1
