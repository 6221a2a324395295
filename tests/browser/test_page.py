"""The page at /, in a real browser, against the real daemon."""

import struct
from pathlib import Path

import pytest

from sgpud.testing.kubelet.plugins import PluginError
from tests.browser.conftest import Shown
from tests.browser.driver import Browser
from tests.daemon.node import RESOURCE, A, B
from tests.daemon.record import WITHIN

pytestmark = pytest.mark.browser
DESKTOP, PHONE = (1280, 900), (390, 844)
HOSTILE = "<img src=x onerror=document.title=1>"
LOADED = "return document.querySelectorAll('details.gpu').length"


def occupied(shown: Shown, *, hostile: bool = False) -> None:
    """Pods of several sizes, a refusal, and a GPU that is kept out."""
    pods = [("train", 18), ("chat", 8), ("search", 4), (HOSTILE if hostile else "embed", 6)]
    for name, count in pods:
        shown.kubelet.admit(f"uid-{name}", "prod", name, "main", {RESOURCE: count}, timeout=WITHIN)
    with pytest.raises(PluginError):
        shown.kubelet.plugin(RESOURCE).allocate((f"{A}::39", f"{B}::23"), WITHIN)
    shown.daemon.status(lambda status: "36 held" in status)
    shown.node.command("cordon", B, "--run-dir", str(shown.node.run))


def until_named(browser: Browser, name: str = "prod/train") -> None:
    """Wait until the page has refreshed itself and knows the pods."""
    browser.until("return document.getElementById('gpus').innerText", lambda text: name in text)


def test_a_person_sees_the_node(browser: Browser, shown: Shown, pictures: Path) -> None:
    browser.show(shown.address, *DESKTOP)
    assert browser.until(LOADED) == 2
    occupied(shown)
    until_named(browser)
    until_named(browser, "prod/embed")
    text = browser.until(
        "return document.body.innerText", lambda text: "refused" in text and "cordoned" in text
    )
    for expected in (
        "GPU 0 · A100-SXM4-40GB",
        "prod/train / main",
        "healthy",
        f"{RESOURCE}",
        "registered",
        "unknown: not advertised here",
        "18 GiB",
        "Recent decisions",
    ):
        assert expected in text
    picture = browser.shoot(pictures / "page-desktop.png")
    assert struct.unpack(">II", picture[16:24])[0] == DESKTOP[0]
    bars = browser.run(
        "return [...document.querySelectorAll('.bar')].map((bar) =>"
        " [...bar.children].map((piece) => [piece.title, piece.getBoundingClientRect().width]))"
    )
    train = next(width for bar in bars for title, width in bar if "prod/train" in title)
    search = next(width for bar in bars for title, width in bar if "prod/search" in title)
    assert train > 0
    assert search > 0
    assert len([piece for bar in bars for piece in bar if "prod/" in piece[0]]) == 4
    assert browser.complaints() == []


def test_the_page_requests_no_other_host(browser: Browser, shown: Shown) -> None:
    browser.requests()
    browser.show(shown.address, *DESKTOP)
    assert browser.until(LOADED) == 2
    asked = {url for url in browser.requests() if not url.startswith("data:")}
    assert {
        shown.address,
        f"{shown.address}status",
        f"{shown.address}decisions",
        f"{shown.address}history",
    } <= asked
    assert all(url.startswith(shown.address) for url in asked)


def test_it_fits_a_phone(browser: Browser, shown: Shown, pictures: Path) -> None:
    browser.show(shown.address, *PHONE)
    occupied(shown)
    until_named(browser)
    until_named(browser, "prod/embed")
    widths = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    browser.shoot(pictures / "page-phone.png")
    assert browser.complaints() == []


def test_names_are_text_and_never_markup(browser: Browser, shown: Shown) -> None:
    browser.show(shown.address, *DESKTOP)
    occupied(shown, hostile=True)
    until_named(browser, HOSTILE)
    assert browser.run("return document.images.length") == 0
    assert browser.run("return document.title") == "! 1 of 2 GPUs cordoned - sgpud"


def test_health_is_shown_by_text_and_sign_not_only_colour(browser: Browser, shown: Shown) -> None:
    occupied(shown)
    browser.show(shown.address, *DESKTOP)
    until_named(browser)
    tags = browser.run("return [...document.querySelectorAll('.tag')].map((tag) => tag.innerText)")
    assert "✓ healthy" in tags
    assert "! cordoned" in tags
    assert "✓ registered" in tags
    labels = browser.run(
        "return [...document.querySelectorAll('.bar')].map((bar) => bar.getAttribute('aria-label'))"
    )
    assert any("prod/train" in label for label in labels)


def test_a_stopped_daemon_is_shown_as_not_answering(
    browser: Browser, shown: Shown, pictures: Path
) -> None:
    browser.show(shown.address, *DESKTOP)
    assert browser.until(LOADED) == 2
    shown.daemon.end()
    browser.until(
        "return document.getElementById('age').innerText", lambda text: "no answer" in text
    )
    assert browser.run(HEAD) == ["✗ no answer from sgpud"] * 2 + ["bad"]
    browser.shoot(pictures / "dead-desktop-light.png")
    # What was seen last stays, with its age beside it.
    assert browser.run(LOADED) == 2


HEAD = """
const icon = document.getElementById('icon');
return [document.querySelector('#state .tag').innerText, document.title.replace(' - sgpud', ''),
  icon.href.startsWith('data:image/png') && icon.dataset.grade];
"""
CHANGED = """
return fetch('/status').then((answer) => answer.json()).then((view) => {
  (%s)(view);
  show(view, []);
  %s
});
"""


def test_the_worst_state_is_in_the_header_the_title_and_the_icon(
    browser: Browser, shown: Shown
) -> None:
    browser.show(shown.address, *DESKTOP)
    assert browser.until(LOADED) == 2
    for change, text, grade in (
        ("() => {}", "✓ 2 GPUs healthy", "good"),
        ("(view) => { view.gpus[1].health = 'suspect'; }", "! 1 of 2 GPUs suspect", "warn"),
        (
            "(view) => { view.gpus[0].cordoned = true; view.gpus[1].health = 'unhealthy'; }",
            "✗ 1 of 2 GPUs unhealthy",
            "bad",
        ),
        ("(view) => { view.dead = ['reconciler']; }", "✗ failed: reconciler", "bad"),
        ("(view) => { view.unready = ['no kubelet']; }", "✗ not ready", "bad"),
    ):
        first, title, icon = browser.run(CHANGED % (change, HEAD))
        assert (title, icon) == (text, grade)
        assert first == (text if grade != "good" else "✓ serving")


MEASURED = """
return fetch('/status').then((answer) => answer.json()).then((view) => {
  const gpu = view.gpus.find((one) => one.containers.length > 1);
  gpu.containers.forEach((one) => {
    one.used = one.granted / 2; one.over = 0; one.utilisation = 7;
  });
  gpu.containers[0].used = gpu.containers[0].granted + 3 * 2 ** 30;
  gpu.containers[0].over = 3 * 2 ** 30;
  gpu.processes = [{owner: 'shareless', command: 'miner', pid: 4711, used: 2 ** 30, uid: 'u',
    pod: 'sly', namespace: 'dev', container: 'c'}];
  show(view, []);
  return document.getElementById('gpus').innerText;
});
"""


def test_what_is_used_beyond_what_was_granted_is_shown(
    browser: Browser, shown: Shown, pictures: Path
) -> None:
    occupied(shown)
    browser.show(shown.address, *DESKTOP)
    until_named(browser)
    until_named(browser, "prod/embed")
    text = browser.run(MEASURED)
    assert "✗ 3 GiB over" in text
    assert "7 %" in text
    assert "1 process without a share" in text
    labels = browser.run(
        "return [...document.querySelectorAll('.bar')].map((bar) => bar.getAttribute('aria-label'))"
    )
    assert any("3 GiB over" in label for label in labels)
    browser.shoot(pictures / "page-over.png")
