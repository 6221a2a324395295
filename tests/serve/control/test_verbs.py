"""What each verb answers, as JSON can say it."""

import json

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from sgpud.core.explain.explain import Evidence
from sgpud.core.planning.node import Node
from sgpud.core.status.view import ConfigurationView, Counters, NodeView
from sgpud.serve.control.verbs import MissingArgumentError, verbs

VIEW = NodeView(
    version="1.2.3",
    serving="serving",
    directory="/var/lib/kubelet/device-plugins",
    configuration=ConfigurationView("/etc/sgpud.toml", "file"),
    driver="",
    probe="",
    method="",
    holders="",
    pools=(),
    notes=(),
    counters=Counters(refusals={"multiple": 1}),
)


@frozen
class Outcome:
    result: str
    keys: tuple[str, ...] = ()


class GpusThatLetGo:
    def __init__(self) -> None:
        self.released = False

    def release(self) -> Deferred[bool]:
        self.released = True
        return succeed(True)  # noqa: FBT003 - the Deferred's result

    def acquire(self) -> None:
        self.released = False


class Words:
    """Remembers what the operator said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def cordon(self, name: str) -> dict[str, str]:
        self.said.append(("cordon", name))
        return {"GPU-1": ""}

    def uncordon(self, name: str) -> dict[str, str]:
        self.said.append(("uncordon", name))
        return {"GPU-1": "", "GPU-2": "is not cordoned"}

    def heal(self, name: str) -> dict[str, str]:
        self.said.append(("heal", name))
        return {"GPU-1": ""}


class VerbsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.gpus = GpusThatLetGo()
        self.words = Words()
        self.verbs = verbs(
            lambda: Evidence(Node(), None, VIEW, ()),
            lambda *asked: Outcome("applied", ("sharing.duplication_factor", *map(str, asked))),
            lambda: Outcome("unchanged"),
            self.gpus,
            self.words,
            lambda step: {"step": step},
        )

    def answer(self, verb: str, **arguments: object) -> object:
        result = self.verbs[verb](arguments)
        if isinstance(result, Deferred):
            result = self.successResultOf(result)
        return json.loads(json.dumps(result))

    def test_a_step_of_a_switch(self) -> None:
        self.assertEqual(self.answer("switch", step="free"), {"step": "free"})

    def test_status_is_the_whole_view(self) -> None:
        found = self.answer("status")
        assert isinstance(found, dict)
        assert found["version"] == "1.2.3"
        assert found["counters"]["refusals"] == {"multiple": 1}

    def test_plan_has_the_view_and_what_a_reload_would_change(self) -> None:
        found = self.answer("plan")
        assert isinstance(found, dict)
        assert found["view"] == self.answer("status")
        key = "sharing.duplication_factor"
        assert found["reload"] == {"result": "applied", "keys": [key, "", "", "()"]}
        found = self.answer("plan", file="/f", text="x", set=["a.b=1"])
        assert isinstance(found, dict)
        assert found["reload"]["keys"] == [key, "/f", "x", "('a.b=1',)"]
        for wrong in ({"file": 1}, {"text": None}, {"set": "a.b=1"}, {"set": [1]}):
            with self.assertRaises(MissingArgumentError):
                self.answer("plan", **wrong)

    def test_reload_returns_its_outcome(self) -> None:
        assert self.answer("reload") == {"result": "unchanged", "keys": []}

    def test_release_and_acquire_reach_the_gpus(self) -> None:
        assert self.answer("release") == {"released": True}
        assert self.gpus.released
        assert self.answer("acquire") == {"acquired": True}
        assert not self.gpus.released

    def test_cordon_uncordon_and_heal_name_a_gpu(self) -> None:
        assert self.answer("cordon", gpu="0") == {"gpus": ["GPU-1"], "unchanged": {}}
        assert self.answer("uncordon", gpu="0") == {
            "gpus": ["GPU-1", "GPU-2"],
            "unchanged": {"GPU-2": "is not cordoned"},
        }
        assert self.answer("heal", gpu="GPU-1") == {"gpus": ["GPU-1"], "unchanged": {}}
        assert self.words.said == [("cordon", "0"), ("uncordon", "0"), ("heal", "GPU-1")]

    def test_a_request_without_a_gpu_is_refused(self) -> None:
        for arguments in ({}, {"gpu": ""}, {"gpu": 0}, {"gpu": None}):
            with self.assertRaises(MissingArgumentError):
                self.answer("cordon", **arguments)
        assert self.words.said == []

    def test_explain_needs_a_subject(self) -> None:
        found = self.answer("explain", about="default/chat")
        assert isinstance(found, dict)
        assert (found["subject"], found["decisions"], found["kept"]) == ("pod", [], 0)
        assert found["answer"][0].startswith("No container of a pod default/chat")
        for arguments in ({}, {"about": ""}, {"about": 0}):
            with self.assertRaises(MissingArgumentError) as caught:
                self.answer("explain", **arguments)
            assert 'needs "about"' in str(caught.exception)
