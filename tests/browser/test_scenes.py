"""The page of many nodes, on a desktop and a phone, in light and dark: pictures to look at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sgpud.serve.http.page_data import PageData
from sgpud.serve.http.pages import pages
from tests.browser.driver import Browser
from tests.browser.scenes import SCENES, Scene

pytestmark = pytest.mark.browser
WIDTHS = {"desktop": 1280, "phone": 390}
SHOWN = "return document.getElementById('age').innerText.startsWith('as of')"


class Stage:
    """Serves the routes of the daemon, for one scene at a time."""

    def __init__(self) -> None:
        self.scene: Scene | None = None
        stage = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = stage.routes.get(self.path.partition("?")[0].encode())
                if found is None:
                    self.send_error(404)
                    return
                answer = found.make("")
                self.send_response(answer.status)
                for name, value in (("content-type", answer.content_type), *answer.headers):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.routes = pages(
            PageData(lambda: self.now.view, lambda: self.now.decisions, lambda: self.now.history)
        )

    @property
    def now(self) -> Scene:
        assert self.scene is not None
        return self.scene

    def address(self, scene: str, fragment: str = "") -> str:
        self.scene = SCENES[scene]
        return f"http://127.0.0.1:{self.server.server_port}/?{scene}{fragment}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    try:
        yield made
    finally:
        made.close()


def shown(browser: Browser, stage: Stage, scene: str, width: int, fragment: str = "") -> None:
    browser.show(stage.address(scene, fragment), width, 900)
    browser.until(SHOWN)
    browser.until(f"return document.getElementById('filter').value === '{fragment[1:]}'")


LINES = "return [...document.querySelectorAll('#gpus > .gpu')].map((one) => one.innerText)"
GRADES = "return [...document.querySelectorAll('#gpus > .gpu')].map((one) => one.classList[1])"
OPEN = "return document.querySelectorAll('details.gpu[open]').length"
HEIGHT = "return document.documentElement.scrollHeight"


@pytest.mark.parametrize("scene", SCENES)
def test_every_node_fits_every_screen(
    browser: Browser, stage: Stage, pictures: Path, scene: str
) -> None:
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        for name, width in WIDTHS.items():
            shown(browser, stage, scene, width)
            browser.shoot(pictures / f"{scene}-{name}-{scheme}.png")
            inside = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")
            assert inside[0] <= inside[1]
            lines = browser.run(LINES)
            view = SCENES[scene].view
            assert len(lines) == len(view.gpus) + len(view.unreadable)
    assert browser.complaints() == []


def test_many_gpus_are_a_line_each_the_worst_first(
    browser: Browser, stage: Stage, pictures: Path
) -> None:
    shown(browser, stage, "eight", 1280)
    assert browser.run(OPEN) == 0
    first, second, *rest = browser.run(LINES)
    assert "GPU 5" in first
    assert "To do: reboot the node" in first
    assert "GPU 2" in second
    assert "cordoned" in second
    assert "GPU 6" in rest[0]
    assert "1 container uses more memory than granted" in rest[0]
    assert browser.run(GRADES) == ["bad", "warn", "warn", *["good"] * 5]
    # The 240 holders took 9 800 px before they could be folded.
    assert browser.run(HEIGHT) < 2000
    browser.run("document.querySelector('.line').click()")
    assert browser.run(OPEN) == 1
    assert "speech/" in browser.run(LINES)[0]
    browser.shoot(pictures / "eight-one-unfolded.png")
    browser.run("document.getElementById('fold').click()")
    assert browser.run(OPEN) == 0
    browser.run("document.getElementById('fold').click()")
    assert browser.run(OPEN) == 8
    shown(browser, stage, "eight", 390)
    assert browser.run(HEIGHT) < 3500


def test_a_filter_leaves_what_matches(browser: Browser, stage: Stage, pictures: Path) -> None:
    shown(browser, stage, "eight", 1280, "#chat-31")
    assert browser.run("return document.getElementById('filter').value") == "chat-31"
    (line,) = browser.run(LINES)
    assert "ops/chat-31 / main" in line
    assert line.count("/ main") == 1
    assert "29 more holders, which the filter hides" in line
    text = browser.text()
    assert "7 GPUs without a match are hidden" in text
    assert "1 of 240 holders" in text
    assert "ops/chat-31/main" in text.partition("Recent decisions")[2]
    browser.shoot(pictures / "eight-filtered.png")
    browser.run(
        "const input = document.getElementById('filter'); input.value = 'Speech/';"
        "input.dispatchEvent(new Event('input'))"
    )
    assert len(browser.run(LINES)) == 8
    assert "60 of 240 holders" in browser.text()
    assert browser.run("return location.hash") == "#Speech%2F"


def test_what_a_gpu_has_not_is_beyond_a_line(browser: Browser, stage: Stage) -> None:
    shown(browser, stage, "over", 1280)
    places = browser.run(
        "const scale = document.querySelector('.body .scale').getBoundingClientRect();"
        "const limit = document.querySelector('.body .limit').getBoundingClientRect();"
        "const bar = [...document.querySelectorAll('.body .bar')[0].children];"
        "const end = bar[bar.length - 1].getBoundingClientRect().right;"
        "return [scale.width, limit.left + 2 - scale.left, end - scale.left]"
    )
    width, limit, end = places
    committed = 9 + 4 * 7
    assert abs(limit / width - 24 / committed) < 0.01
    assert abs(end / width - 1) < 0.01
    assert "over-committed: 37 of 24 GiB used or granted, 13 GiB more" in browser.text()


def test_the_last_hour_is_drawn_with_its_gaps(browser: Browser, stage: Stage) -> None:
    drawn = (
        "return [...document.querySelectorAll('svg.spark')].map((one) =>"
        " [one.getAttribute('aria-label'), one.querySelectorAll('path').length])"
    )
    shown(browser, stage, "two", 1280)
    found = browser.run(drawn)
    # A line and an area, for the memory and the utilisation of each GPU.
    assert [count for _, count in found] == [2, 2, 2, 2]
    assert all("last hour: at most" in text for text, _ in found)
    shown(browser, stage, "eight", 1280)
    assert sorted(count for _, count in browser.run(drawn)) == [*[2] * 14, 4, 4]
    shown(browser, stage, "mig", 1280)
    assert len(browser.run(drawn)) == 4 + 1


def test_where_memory_limits_and_dra_are_used_the_page_says_so(
    browser: Browser, stage: Stage
) -> None:
    shown(browser, stage, "dra", 1280)
    text = browser.text()
    for expected in (
        "DRA driver gpu.deepomatic.com",
        "not published",
        "3 claims prepared",
        "refused: 2 gone",
        "the cluster lacks DRAConsumableCapacity",
        "ResourceSlice: 403 Forbidden",
        "Memory limits: watch (driver 580.95.05 cannot limit memory)",
        "install driver 615 or later",
    ):
        assert expected in text
