"""A headless Chromium for tests of pages: the little of the W3C WebDriver protocol that they need."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Browser", "browser", "has_browser"]

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of a reference to an element


def has_browser() -> bool:
    """Whether Chromium and its driver are installed."""
    return shutil.which("chromedriver") is not None and shutil.which("chromium") is not None


class BrowserError(Exception):
    """What the driver says of a command that failed."""


class Browser:
    """One window."""

    def __init__(self, driver: str) -> None:
        self._driver = driver
        options = {
            "binary": shutil.which("chromium"),
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1600"],
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{session['sessionId']}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._driver + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise BrowserError(json.load(error)["value"]["message"]) from error

    def open(self, url: str) -> None:
        self._ask("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """The result of JavaScript in the page."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def wait_for(self, script: str, seconds: float = 120) -> Any:
        """The first result of a script that is true.

        Raises:
            TimeoutError: there is none in time; says what the page shows.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(BrowserError):  # an element that is not there yet
                if found := self.run(script):
                    return found
            time.sleep(0.2)
        raise TimeoutError(
            f"not in {seconds} s: {script}; the page: {self.run('return document.body.innerText')}"
        )

    def type_into(self, selector: str, text: str) -> None:
        """Send keys to an element; of a file input, the path of the file."""
        where = {"using": "css selector", "value": selector}
        element = self._ask("POST", f"{self._session}/element", where)[_ELEMENT]
        self._ask("POST", f"{self._session}/element/{element}/value", {"text": text})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", f"{self._session}/screenshot")))

    def close(self) -> None:
        self._ask("DELETE", self._session)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser, and its driver on a free port, that end with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.1)
        window = Browser(f"http://127.0.0.1:{port}")
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait(timeout=20)
