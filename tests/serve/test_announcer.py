"""When systemd is told what the view says."""

from collections.abc import Callable

from attrs import evolve
from twisted.internet.task import Clock

from sgpud.core.status.view import ConfigurationView, Counters, NodeView
from sgpud.serve.announcer import SHOW_AFTER, Announcer
from sgpud.serve.systemd import Systemd

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


def test_ready_is_told_once_when_it_becomes_true() -> None:
    setting = Setting()
    setting.announcer.show()
    assert "READY=1" not in setting.sent
    setting.ready = True
    setting.announcer.show()
    setting.announcer.show()
    assert setting.sent == ["STATUS=standby; no driver", "READY=1"]


def test_nothing_is_shown_after_the_end() -> None:
    setting = Setting()
    setting.announcer.changed()
    setting.announcer.stop()
    setting.announcer.changed()
    setting.clock.advance(60)
    assert setting.sent == []
