"""Why a pod, a share or a GPU is as it is."""

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve

from sgpud.core.allocation.decisions import Decision, DecisionKind, GpuCount, gpu_snapshots
from sgpud.core.explain.explain import (
    SHOWN,
    Evidence,
    Explanation,
    explain,
    recent,
)
from sgpud.core.gpu.gpu import UnreadableGpu
from sgpud.core.health.node_health import UnknownGpuError
from sgpud.core.intset import IntSet
from sgpud.core.limits.pod_caps import CapFacts, CapState
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import plan
from sgpud.core.registration.events import RegistrationState
from sgpud.core.sharing.rules import InjectionMethod, InjectionSettings, Multiple, ShareTerms
from sgpud.core.status.view import summary
from tests.core.status.viewing import LIVE, viewed
from tests.core.values import (
    GIB,
    POOL,
    fallen,
    gpu,
    grant,
    ids,
    mig,
    node,
    planned,
    sharing,
    uuid,
)

DELIVERY = InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)
GPUS = [gpu(0), gpu(1)]
CHAT = Holder(
    "uid-chat", "main", POOL, {uuid(0): IntSet.of([2])}, {uuid(0): 4}, {}, 1000.0, "prod", "chat"
)
TWIN = evolve(CHAT, pod="uid-twin", shares={uuid(0): IntSet.of([3])}, name="twin")
NAMELESS = evolve(CHAT, pod="uid-x", shares={uuid(1): IntSet.of([0])}, namespace="", name="")


def decided(
    kind: DecisionKind, at: float, *parts: GpuCount, rule: str = "distinct", text: str = ""
) -> Decision:
    return Decision(at, kind, POOL, sum(part.count for part in parts), parts, rule, text)


CHOICE = decided(DecisionKind.PREFERENCE, 1000.1, GpuCount(uuid(0), 1, 2), rule="distinct, spread")
GAVE_CHAT = decided(DecisionKind.ALLOCATION, 1000.2, GpuCount(uuid(0), 1, 2))
GAVE_TWIN = decided(DecisionKind.ALLOCATION, 1000.3, GpuCount(uuid(0), 1, 3))
REFUSED = decided(
    DecisionKind.REFUSAL,
    1000.4,
    GpuCount(uuid(1), 2, 1),
    rule="multiple",
    text="2 shares are on 1 GPU",
)
ALL = (CHOICE, GAVE_CHAT, GAVE_TWIN, REFUSED)


def known(
    *holders: Holder,
    decisions: Sequence[Decision] = ALL,
    of: Node | None = None,
    state: RegistrationState | None = LIVE,
    **seen: Any,
) -> Evidence:
    there = of or node(sharing(injection=DELIVERY), GPUS, CheckpointState(holders, 1001.0))
    made = plan(there, 1001.0)
    shown = evolve(viewed(there, made, state), **seen)
    return Evidence(there, made, shown, tuple(decisions))


def kinds(found: Explanation) -> list[tuple[str, float]]:
    return [(one.kind, one.at) for one in found.decisions]


def said(found: Explanation) -> str:
    return "\n".join(found.answer)


# Pods. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat", "prod/chat", "uid-chat"])
def test_what_a_pod_holds_and_how_it_was_chosen(name: str) -> None:
    found = explain(name, known(CHAT, TWIN))
    assert found.subject == "pod"
    assert found.answer == (
        f"prod/chat/main holds 1 share of {POOL} on {uuid(0)}, since 1970-01-01 00:16:40Z.",
    )
    # Not the twin's, although it was given as much of the same GPU in the same second.
    assert kinds(found) == [("preference", 1000.1), ("allocation", 1000.2)]
    (held,) = found.holders
    assert (held.uid, held.shares, held.gpu) == ("uid-chat", 1, uuid(0))
    assert (found.kept, found.since) == (4, 1000.1)


def test_what_limits_memory_is_explained_for_memory_shares_and_their_holders() -> None:
    holder = evolve(CHAT, sizes={uuid(0): GIB})
    memory = evolve(sharing(injection=DELIVERY), default=ShareTerms(POOL, 4, GIB))
    of = node(memory, GPUS, CheckpointState((holder,), 1001.0))
    said_of = f"Nothing limits how much memory a container uses of {uuid(0)}: driver of unknown"
    for name in ("chat", "0"):
        assert said_of in said(explain(name, known(of=of)))
    assert "limits how much" not in said(explain("chat", known(CHAT)))


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (CapState(4 * GIB, GIB), f"Its memory of {uuid(0)} is limited to 4GiB, of which 1GiB are"),
        (CapState(4 * GIB, None, late=True), "is limited to 4GiB; what it had allocated before"),
        (CapState(problem="no helper"), f"Its memory of {uuid(0)} is not limited: no helper."),
        (CapState(problem="no helper", waits=True), "A container of it waits: [limits] memory is"),
        (CapState(), "is not limited yet"),
    ],
)
def test_what_limits_a_pod_is_explained(state: CapState, sentence: str) -> None:
    caps = CapFacts(installed=True, caps={("uid-chat", uuid(0)): state})
    there = node(sharing(injection=DELIVERY), GPUS, CheckpointState((CHAT, TWIN), 1001.0))
    of = evolve(there, capping=caps)
    assert sentence in said(explain("chat", known(of=of)))
    assert "Its memory" not in said(explain("twin", known(of=of)))


def test_overuse_is_explained_for_its_pod_and_its_gpu() -> None:
    of = known(CHAT, TWIN)
    gpus = tuple(
        evolve(
            one,
            containers=tuple(
                evolve(each, over=GIB, over_for=45.0, verdict="it exceeds most")
                if each.uid == "uid-chat"
                else each
                for each in one.containers
            ),
        )
        for one in of.seen.gpus
    )
    of = evolve(of, seen=evolve(of.seen, gpus=gpus))
    sentence = f"prod/chat/main has used 1GiB more memory of {uuid(0)} than it was granted for 45 s"
    for name in ("chat", "0"):
        assert f"{sentence}: it exceeds most." in explain(name, of).answer
    for name in ("twin", "1"):
        assert "more memory" not in said(explain(name, of))


def test_decisions_older_than_the_record_are_reported_as_unknown() -> None:
    found = explain("chat", known(CHAT, decisions=[GAVE_TWIN]))
    assert found.decisions == ()
    assert "no longer known" in said(found)


def test_a_pod_that_holds_nothing_may_be_one_of_those_refused() -> None:
    found = explain("prod/train", known(CHAT))
    assert "No container of a pod prod/train holds a share" in said(found)
    assert "1 container;" in said(found)
    assert "UnexpectedAdmissionError" in said(found)
    assert kinds(found) == [("refusal", 1000.4)]
    assert found.decisions[0].why == "2 shares are on 1 GPU"
    assert f"{POOL}: 7 shares can be given now, up to 2 to one container" in said(found)


def test_a_pod_that_was_never_bound_is_the_scheduler_s() -> None:
    assert "the scheduler has not bound it" in said(explain("train", known(decisions=[GAVE_TWIN])))
    assert "asked for no share since this sgpud started" in said(
        explain("train", known(decisions=[]))
    )


def test_pods_without_a_name_are_asked_for_by_uid() -> None:
    assert "or with the pod's UID" in said(explain("train", known(NAMELESS)))
    assert explain("uid-x", known(NAMELESS)).holders[0].gpu == uuid(1)
    assert "not known yet" in said(explain("/", known(NAMELESS)))


def test_obstacles_to_a_pod_are_explained() -> None:
    unregistered = said(explain("train", known(state=None)))
    assert f"{POOL} is not registered with the kubelet (not registered)" in unregistered
    sick = node(sharing(injection=DELIVERY), GPUS, CheckpointState())
    for one in (0, 1):
        sick = fallen(sick, uuid(one))
    text = said(explain("train", known(of=sick)))
    assert f"{POOL}: no share can be given now (0 are held)" in text
    assert f"{POOL}: {uuid(0)} is unhealthy: " in text
    assert "does not serve the node now (standby)" in said(
        explain("train", known(serving="standby"))
    )
    nothing = evolve(known(), plan=None, seen=evolve(known().seen, unknown=("holders",)))
    assert "does not know the holders" in said(explain("train", nothing))
    doubt = known(CHAT, holders="the kubelet's podresources does not answer")
    assert "may be stale: the kubelet's podresources" in said(explain("chat", doubt))


@pytest.mark.parametrize(
    ("multiple", "most"),
    [
        (Multiple.DISTINCT, "8 shares can be given now, up to 2 to"),
        (Multiple.SAME, "8 shares can be given now, up to 8 to"),
        (Multiple.ANY, "8 shares can be given now, up to 8 to"),
        (Multiple.REFUSE, "8 shares can be given now, up to 1 to"),
    ],
)
def test_the_number_of_shares_that_fit_is_explained(multiple: Multiple, most: str) -> None:
    there = node(sharing(injection=DELIVERY, multiple=multiple), GPUS, CheckpointState())
    text = said(explain("train", known(of=there)))
    assert most in text
    assert f'multiple = "{multiple.value}"' in text


def test_memory_shares_are_of_one_gpu() -> None:
    config = sharing(injection=DELIVERY)
    config = evolve(config, default=evolve(config.default, share_memory=10 * GIB))
    text = said(explain("train", known(of=node(config, GPUS, CheckpointState()))))
    assert "up to 4 to one container (memory shares are of one GPU)" in text


# Shares. -----------------------------------------------------------------------------------------


def test_a_held_share() -> None:
    found = explain(ids(0, 3)[0], known(CHAT, TWIN))
    assert found.subject == "share"
    assert found.answer == (
        f"{uuid(0)}::3 is a share of {POOL}, listed Healthy.",
        "prod/twin/main holds it, since 1970-01-01 00:16:40Z.",
    )
    assert kinds(found) == [("allocation", 1000.3)]


def test_a_free_share_that_was_refused() -> None:
    found = explain(ids(1, 1)[0], known(CHAT))
    assert found.answer[-1] == "Nobody holds it."
    assert kinds(found) == [("refusal", 1000.4)]


def test_a_share_that_was_given_this_moment() -> None:
    there = node(sharing(injection=DELIVERY), GPUS, CheckpointState())
    there = evolve(there, grants=(grant({uuid(0): IntSet.of([2, 3])}),))
    found = explain(ids(0, 2)[0], known(of=there))
    assert found.answer[-1] == (
        "a container that is being started holds it, since 1970-01-01 00:16:40Z."
    )
    assert kinds(found) == [("preference", 1000.1), ("allocation", 1000.2)]


def test_shares_that_are_listed_unhealthy_or_not_at_all() -> None:
    sick = known(
        of=fallen(node(sharing(injection=DELIVERY), GPUS, CheckpointState((CHAT,))), uuid(0))
    )
    text = said(explain(ids(0, 0)[0], sick))
    assert "listed Unhealthy, because its GPU is unhealthy: " in text
    assert "is not listed: it never was" in said(explain(ids(0, 77)[0], known()))


# GPUs. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [uuid(0), "0", uuid(0)[:12]])
def test_a_gpu(name: str) -> None:
    pool = known().plan
    assert pool is not None
    offered = evolve(CHOICE, gpu_snapshots=gpu_snapshots(pool.pools[0]), offered=(4, 4))
    passed = evolve(offered, at=999.0, parts=(GpuCount(uuid(1), 1, 0),))
    found = explain(name, known(CHAT, TWIN, decisions=[passed, offered, *ALL[1:]]))
    assert found.subject == "gpu"
    assert found.answer == (
        f"{uuid(0)} is healthy.",
        f"{uuid(0)} (NVIDIA A100-SXM4-40GB) is available in {POOL}: 2 held, 2 free.",
        (
            f"Nothing limits how much memory a container uses of {uuid(0)}: its shares are places,"
            " which promise no memory. Set [sharing] share_memory, or expected_memory to have"
            " overuse reported."
        ),
        "Of the last 2 times that the kubelet offered shares of it, 1 took some.",
    )
    assert [one.named for one in found.holders] == ["prod/chat/main", "prod/twin/main"]
    assert [one.at for one in found.decisions] == [1000.1, 1000.2, 1000.3]
    (taken, _) = found.decisions[0].gpus
    assert (taken.taken, taken.offered, taken.held, taken.shares) == (1, 4, 0, 4)


def test_a_share_that_two_hold_names_both() -> None:
    twice = evolve(TWIN, shares=CHAT.shares)
    found = explain(ids(0, 2)[0], known(CHAT, twice))
    assert [one.pod for one in found.holders] == ["chat", "twin"]
    assert len([text for text in found.answer if "holds it" in text]) == 2


def test_an_unhealthy_gpu_is_explained_with_advice() -> None:
    sick = fallen(node(sharing(injection=DELIVERY), GPUS, CheckpointState()), uuid(1))
    text = said(explain("1", known(of=sick)))
    assert "is unhealthy in" in text
    assert text.startswith(f"{uuid(1)} is unhealthy: XID 79")
    assert "To do: " in text
    assert "0 held, 4 unhealthy." in text


def test_a_pod_on_an_unhealthy_gpu_says_so_before_how_it_came_there() -> None:
    dead = fallen(node(sharing(injection=DELIVERY), GPUS, CheckpointState((CHAT, TWIN))), uuid(0))
    found = explain("prod/chat", known(of=dead))
    assert "holds 1 share" in found.answer[0]
    assert found.answer[1].startswith(f"{uuid(0)} is unhealthy: XID 79")
    assert [one.holder for one in found.decisions if one.kind == "allocation"] == [""]


def test_an_allocation_carries_the_name_of_its_pod_once_it_is_known() -> None:
    once = known(CHAT, NAMELESS)
    (gave, _) = recent((GAVE_CHAT, REFUSED), 2, once.seen)[::-1]
    assert gave.holder == "prod/chat/main"
    assert [one.holder for one in recent(ALL, 9, known(NAMELESS).seen)] == [""] * 4
    # Two pods that were given the same in the same second: nobody can say which is which.
    assert recent((GAVE_CHAT,), 1, known(CHAT, TWIN).seen)[0].holder == ""


def test_a_gpu_that_is_divided_into_instances_is_explained_with_them() -> None:
    parts = [mig(gpu(0), 1), mig(gpu(0), 2)]
    text = said(explain("0", known(of=node(sharing(injection=DELIVERY), parts, CheckpointState()))))
    assert f"{uuid(0)} is healthy." in text
    assert f"is divided into MIG instances: {parts[0].uuid}, {parts[1].uuid}." in text
    assert f"{parts[1].uuid} (" in text
    assert "not shared" not in text


@pytest.mark.parametrize("name", ["7", "GPU-0000", "GPU-ffffffff", "GPU-"])
def test_a_gpu_that_is_not_here(name: str) -> None:
    with pytest.raises(UnknownGpuError) as caught:
        explain(name, known())
    assert uuid(0) in str(caught.value)


def test_only_the_last_decisions_are_shown() -> None:
    many = [evolve(GAVE_CHAT, at=2000.0 + number) for number in range(SHOWN + 5)]
    found = explain("0", known(decisions=many))
    assert (len(found.decisions), found.left_out) == (SHOWN, 5)
    assert found.decisions[-1].at == many[-1].at
    newest = recent(many, 3, known().seen)
    assert [one.at for one in newest] == [one.at for one in reversed(many[-3:])]
    assert recent((), 3, known().seen) == ()


@pytest.mark.parametrize(
    ("rule", "asked", "parts", "why"),
    [
        ("distinct, spread", 2, 1, "only 1 had one, so that Allocate refuses this"),
        ("same, best fit", 2, 2, "no GPU had 2, so that Allocate refuses this"),
        ("refuse, packed", 2, 1, "Allocate refuses more"),
        ("any, spread", 2, 1, "first the GPU with the smallest fraction held"),
    ],
)
def test_a_preference_that_could_not_be_kept_says_so(
    rule: str, asked: int, parts: int, why: str
) -> None:
    taken = tuple(GpuCount(uuid(number), 1, 0) for number in range(parts))
    one = Decision(1.0, DecisionKind.PREFERENCE, POOL, asked, taken, rule)
    (view,) = recent([one], 1, known().seen)
    assert view.why.endswith(why)


def test_a_preference_for_whole_gpus_is_one_that_allocate_grants() -> None:
    there = node(sharing(injection=DELIVERY, multiple=Multiple.SAME), GPUS, CheckpointState())
    snapshots = gpu_snapshots(planned(there).pools[0])
    taken = tuple(GpuCount(each.uuid, each.shares, 0) for each in snapshots)
    asked = sum(each.shares for each in snapshots)
    kind = DecisionKind.PREFERENCE
    one = Decision(1.0, kind, POOL, asked, taken, "same, spread", "", snapshots, (4, 4))
    (view,) = recent([one], 1, known().seen)
    assert "refuses" not in view.why


LOST = UnreadableGpu(4, "GPU is lost (NVML error 15)", pci="0000:3b:00.0")


@pytest.mark.parametrize("name", ["4", "0000:3b:00.0", "3B:00.0"])
def test_a_gpu_that_cannot_be_shared_is_explained(name: str) -> None:
    found = explain(name, known(unreadable=(LOST,)))
    assert found.answer == ("GPU 4 (0000:3b:00.0) cannot be shared: GPU is lost (NVML error 15).",)


def test_a_gpu_that_cannot_be_shared_is_in_status_and_notes() -> None:
    of = node(sharing(allow=("*", "4", "7")), GPUS)
    of = evolve(of, unreadable=(LOST,))
    made = plan(of, 0.0)
    seen = viewed(of, made)
    assert seen.unreadable == (LOST,)
    assert "GPU 4 (0000:3b:00.0): GPU is lost" in summary(seen)
    assert any("is GPU 4 (0000:3b:00.0), which cannot be shared" in note for note in seen.notes)
    assert 'gpus.allow: "7" matches no GPU of this node' in seen.notes
