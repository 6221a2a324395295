"""A headless Chromium, driven by chromedriver over WebDriver's HTTP: no library is needed."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

WITHIN = 60.0
"""Seconds that anything may take on a busy machine."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--hide-scrollbars",
)


class Browser:
    """One window. Every wait has a time limit and ends in an AssertionError."""

    def __init__(self, chromedriver: str, chromium: str) -> None:
        """Start chromedriver at a free port; it starts Chromium with an empty profile."""
        self._profile = tempfile.TemporaryDirectory(prefix="sgpud-browser-")
        self._process = subprocess.Popen(
            [chromedriver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._session = ""
        try:
            self._port = self._find_port()
            options = {
                "binary": chromium,
                "args": [*FLAGS, f"--user-data-dir={self._profile.name}"],
            }
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{made['sessionId']}"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Ready to use."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End Chromium and chromedriver."""
        if self._session:
            session, self._session = self._session, ""
            self._call("DELETE", session)
        self._process.terminate()
        self._process.wait(WITHIN)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._profile.cleanup()

    def show(self, address: str, width: int, height: int) -> None:
        """Load a page in a window whose inside is so large."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        self._call("POST", f"{self._session}/url", {"url": address})

    def prefer(self, scheme: str) -> None:
        """Have pages shown in `light` or `dark` from now on."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def until(self, script: str, wanted: Callable[[Any], object] = bool) -> Any:
        """Run a script until what it returns is such a thing."""
        end = time.monotonic() + WITHIN
        found = self.run(script)
        while not wanted(found):
            assert time.monotonic() < end, f"{script} still gives {found!r}"
            found = self.run(script)
        return found

    def text(self) -> str:
        """What can be read."""
        return str(self.run("return document.body.innerText"))

    def shoot(self, file: Path) -> bytes:
        """A picture of the whole page, kept in a file."""
        size = (
            "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
        )
        width, height = self.run(size)
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 4000), "scale": 1}
        taken = self._devtools(
            "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
        )
        picture = base64.b64decode(taken["data"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture)
        return picture

    def complaints(self) -> list[str]:
        """What the page has written to the console since the last call: errors of any kind."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def requests(self) -> set[str]:
        """The addresses that were asked for since the last call."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return {
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        }

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        path = f"{self._session}/goog/cdp/execute"
        return self._call("POST", path, {"cmd": command, "params": parameters})

    def _find_port(self) -> int:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "started successfully on port" in line:
                return int(line.rstrip(".\n").rpartition(" ")[2])
        raise AssertionError("chromedriver did not start")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=WITHIN)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer
