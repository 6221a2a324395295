"""When systemd is told what the view says."""

from collections.abc import Callable

from attrs import evolve
from twisted.internet.task import Clock

from sgpud.core.status.view import ConfigurationView, Counters, NodeView
from sgpud.serve.announcer import CHECK_EVERY, SHOW_AFTER, Announcer
from sgpud.serve.systemd import Systemd
from tests.surroundings import listening

VIEW = NodeView(
    version="1.2.3",
    serving="standby",
    directory="/var/lib/kubelet/device-plugins",
    configuration=ConfigurationView("/etc/sgpud.toml", "file"),
    driver="",
    probe="no driver",
    method="",
    holders="",
    pools=(),
    notes=(),
    counters=Counters(),
)


class Setting:
    """An announcer with what it looks at and what it sends."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.view = VIEW
        self.ready = False
        self.sent: list[str] = []

        def connect() -> Callable[[str], object]:
            return self.sent.append

        systemd = Systemd(self.clock, {"NOTIFY_SOCKET": "/run/notify"}, connect)
        self.announcer = Announcer(self.clock, systemd, lambda: self.view, lambda: self.ready)


def test_a_burst_of_changes_is_shown_once() -> None:
    setting = Setting()
    setting.announcer.changed()
    setting.view = evolve(VIEW, probe="no library")
    setting.announcer.changed()
    assert setting.sent == []
    setting.clock.advance(SHOW_AFTER)
    assert setting.sent == ["STATUS=standby; no library"]


def test_ready_is_sent_once() -> None:
    setting = Setting()
    setting.announcer.show()
    assert "READY=1" not in setting.sent
    setting.ready = True
    setting.announcer.show()
    setting.announcer.show()
    assert setting.sent == ["STATUS=standby; no driver", "READY=1"]


def test_nothing_is_shown_after_stop() -> None:
    setting = Setting()
    setting.announcer.changed()
    setting.announcer.stop()
    setting.announcer.changed()
    setting.clock.advance(60)
    assert setting.sent == []


def test_endless_changes_are_shown_each_second() -> None:
    setting = Setting()
    for step in range(400):  # one each 40 ms, for 16 s
        setting.view = evolve(VIEW, probe=f"problem {step}")
        setting.announcer.changed()
        setting.clock.advance(0.04)
    assert 15 <= len(setting.sent) <= 20


def test_endless_changes_do_not_delay_readiness() -> None:
    setting = Setting()
    setting.announcer.show()
    setting.ready = True
    for _ in range(100):
        setting.announcer.changed()
        setting.clock.advance(0.04)
    assert "READY=1" in setting.sent


def test_a_view_that_raises_is_logged_and_retried() -> None:
    setting = Setting()
    whole, setting.view = setting.view, None  # type: ignore[assignment]
    with listening() as said:
        setting.announcer.show()
    assert said.about("Cannot build the status line")
    setting.view = whole
    setting.clock.advance(CHECK_EVERY)
    assert setting.sent[-1] == "STATUS=standby; no driver"
