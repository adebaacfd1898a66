"""A real browser for tests: headless Chromium over its DevTools protocol, one page at a time."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_SECONDS = 60


class Page:
    """A tab.

    Attributes:
        requested: addresses that it requested.
        troubles: failed loads, refused requests, and messages of the console.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._calls = connection, 0
        self.requested: list[str] = []
        self.troubles: list[str] = []
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, address: str, width: int = 1200, height: int = 900) -> None:
        """Load a page in a window of this size, and wait for it."""
        self.requested.clear()
        self.troubles.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Page.navigate", url=address)
        self._receive(lambda message: message.get("method") == "Page.loadEventFired")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self) -> bytes:
        """The content of the window, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def scheme(self, name: str) -> None:
        """What the pages opened from now on are told that the user prefers: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self._call("Emulation.setEmulatedMedia", features=[feature])

    def saved(self, link: str, folder: Path) -> Path:
        """The file that a click on a link saves.

        Args:
            link: JavaScript expression of the element.
        """
        before = set(folder.glob("*"))
        self._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.run(f"({link}).click()")
        deadline = time.monotonic() + _SECONDS
        while True:
            made = [file for file in set(folder.glob("*")) - before if file.suffix != ".crdownload"]
            if made and made[0].stat().st_size:
                return made[0]
            assert time.monotonic() < deadline, "nothing was saved"
            time.sleep(0.05)

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self._call("Page.printToPDF")["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        number = self._calls
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        answer = self._receive(lambda message: message.get("id") == number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _receive(self, wanted: Any) -> dict[str, Any]:
        while True:
            message = json.loads(self._connection.recv(timeout=_SECONDS))
            self._note(message.get("method", ""), message.get("params", {}))
            if wanted(message):
                return dict(message)

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif method == "Network.loadingFailed":
            self.troubles.append(f"not loaded: {told['errorText']}")
        elif method == "Network.responseReceived" and told["response"]["status"] >= 400:
            self.troubles.append(f"{told['response']['status']}: {told['response']['url']}")
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.troubles.append(told["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.troubles.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error"):
            self.troubles.append(str(told["args"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile and one page."""
    command = [
        str(BROWSER),
        *OPTIONS,
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
        "about:blank",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_page_of(profile, process), max_size=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(timeout=_SECONDS)


def _page_of(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The address of the page's DevTools, which the browser writes to a file at its start."""
    import urllib.request

    told, deadline = profile / "DevToolsActivePort", time.monotonic() + _SECONDS
    while not told.exists() or not told.read_text().strip():
        assert process.poll() is None and time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.1)
    port = told.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=_SECONDS) as answer:
        pages = [target for target in json.load(answer) if target["type"] == "page"]
    return str(pages[0]["webSocketDebuggerUrl"])
