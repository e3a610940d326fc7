"""A headless Chromium, driven over WebDriver's own protocol.

Comes in: addresses, scripts and keys. Goes out: what the page has, and pictures of it. The Debian packages `chromium`
and `chromium-driver` have both programs.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from contextlib import suppress
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from stream.servers import free_port

SECONDS = 240.0
"""A busy machine is slow, and no fault."""


def why_unavailable() -> str:
    """What is missing; empty if nothing is."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return (
        f"needs {', '.join(missing)}: apt-get install chromium chromium-driver" if missing else ""
    )


class Browser:
    """One window; a context manager."""

    def __init__(self) -> None:
        self._port = free_port()
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={self._port}", "--log-level=SEVERE"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._session = ""

    def __enter__(self) -> Self:
        deadline = time.monotonic() + SECONDS
        while True:
            with suppress(OSError):
                self._ask("GET", "/status")
                break
            assert time.monotonic() < deadline, "chromedriver does not answer"
            time.sleep(0.1)
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--disable-background-networking", "--disable-extensions", "--no-first-run",
        ]  # fmt: skip
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": int(SECONDS * 1_000), "pageLoad": int(SECONDS * 1_000)},
        }
        told = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{told['sessionId']}"
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, AssertionError):
            self._ask("DELETE", self._session)
        self._driver.terminate()
        self._driver.wait(20)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = Request(
            f"http://127.0.0.1:{self._port}{path}",
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                return json.load(answer)["value"]
        except HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, address: str) -> None:
        self._ask("POST", f"{self._session}/url", {"url": address})

    def size(self, width: int, height: int) -> None:
        """The size of what is seen, whatever the window has around it."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def scheme(self, scheme: str) -> None:
        """Whether the person likes it light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", {"features": features})

    def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._ask("POST", f"{self._session}/goog/cdp/execute", body)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        body = {"script": script, "args": list(arguments)}
        return self._ask("POST", f"{self._session}/execute/sync", body)

    def run_later(self, script: str) -> Any:
        """What a script gives to the function that is its last argument."""
        return self._ask("POST", f"{self._session}/execute/async", {"script": script, "args": []})

    def until(self, script: str) -> Any:
        """What a script returns once that is true."""
        deadline = time.monotonic() + SECONDS
        while not (found := self.run(f"return {script}")):
            assert time.monotonic() < deadline, f"{script} does not come true: {self.text()}"
            time.sleep(0.1)
        return found

    def text(self) -> str:
        """All that is to be read."""
        return str(self.run("return document.body.innerText"))

    def press(self, keys: str) -> None:
        """Keys, one after the other, where the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        told = {"actions": [{"type": "key", "id": "keys", "actions": actions}]}
        self._ask("POST", f"{self._session}/actions", told)

    def complaints(self) -> list[str]:
        """What the console has been told since it was last asked."""
        told = self._ask("POST", f"{self._session}/se/log", {"type": "browser"})
        return [one["message"] for one in told]

    def picture(self) -> bytes:
        """The whole page as a PNG."""
        told = self.devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        return base64.b64decode(told["data"])
