from attrs import evolve

from sgpud.core.intset import IntSet
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import ShareTerms, Sharing
from sgpud.core.status.pools import HolderView, holder_views
from tests.core.values import GIB, OTHER, POOL, checkpoint, gpu, grant, holder, node, uuid

KEY = (POOL, uuid(0))
CONFIG = Sharing(default=ShareTerms(POOL, 100, GIB))


def test_the_holders_of_a_gpu_the_oldest_first() -> None:
    old = evolve(
        holder({uuid(0): IntSet.span(0, 3), uuid(1): IntSet.of([9])}),
        sizes={uuid(0): GIB},
        since=500.0,
        namespace="team",
        name="train",
    )
    new = evolve(holder({uuid(0): IntSet.of([5])}), pod="uid", since=900.0)
    other = holder({uuid(0): IntSet.of([7])}, resource=OTHER)
    found = holder_views(node(CONFIG, [gpu(0)], checkpoint(new, other, old)))[KEY]
    assert found == (
        HolderView("team", "train", "pod", "main", 3, 3 * GIB, 500.0),
        HolderView("", "", "uid", "main", 1, 0, 900.0),
    )


def test_what_was_given_this_moment_has_no_name_yet() -> None:
    given = evolve(grant({uuid(0): IntSet.span(0, 4)}, at=1000.0), sizes={uuid(0): GIB})
    recorded = holder({uuid(0): IntSet.span(0, 3)})
    of = evolve(node(CONFIG, [gpu(0)], checkpoint(recorded)), grants=(given,))
    assert holder_views(of)[KEY][-1] == HolderView("", "", "", "", 1, GIB, 1000.0)
    assert len(holder_views(of)[KEY]) == 2


def test_holders_are_unknown_before_the_first_checkpoint() -> None:
    assert holder_views(Node()) == {}
