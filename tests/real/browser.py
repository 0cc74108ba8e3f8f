# -*- test-case-name: tests.real.test_stats -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A headless Chromium for tests of web pages, controlled over its DevTools protocol.

The protocol uses two pipes, so that no port is opened. The browser connects to no host but the server under test. All
pages of a process share one Chromium, which takes seconds to start, and each page has a profile of its own.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, Self

from tests.real.processes import dieWithParent
from tests.real.servers import PATIENCE, which

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--no-default-browser-check", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--disable-dev-shm-usage", "--no-proxy-server"),
    "--remote-debugging-pipe",
)

#: The codes of keys, as browsers have them from Windows.
_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}


class BrowserFailed(Exception):
    """
    A command of the browser failed or timed out.
    """


def missingBrowser() -> str | None:
    """
    @return: the reason why no browser can be started, for the C{skip} of a test case, or C{None}.
    """
    return None if any(map(which, PROGRAMS)) else "chromium is not installed"


class Chromium:
    """
    The process of the browser, and the messages to and from it: JSON, each followed by a NUL.

    @ivar events: what was reported about each session, by its id: the methods and their parameters.
    """

    _shared: ClassVar[Chromium | None] = None

    @classmethod
    def shared(cls) -> Chromium:
        """
        @return: the browser of this process. It is started if it does not run.
        """
        if cls._shared is None or cls._shared.process.poll() is not None:
            cls._shared = cls()
            atexit.register(cls._shared.stop)
        return cls._shared

    def __init__(self) -> None:
        program = next(path for path in map(which, PROGRAMS) if path is not None)
        self.events: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._count = 0
        self._buffer = b""
        self._replies: dict[int, dict[str, Any]] = {}
        self._profile = tempfile.mkdtemp(prefix="browser-")
        # Chromium uses the descriptors 3 and 4, so the pipes here must have other numbers.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for pair in (os.pipe(), os.pipe()) for end in pair]
        theirs, self._out, self._in, answers = ends
        command = f'exec "$0" "$@" 3<&{theirs} 4>&{answers}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, program, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            pass_fds=(theirs, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dieWithParent,
        )
        os.close(theirs)
        os.close(answers)

    def stop(self) -> None:
        """
        Kill the browser with all its processes.
        """
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for end in (self._out, self._in):
            os.close(end)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """
        Send a command.

        @param session: the id of the session of a page, or C{None} for a command to the browser.
        @return: the result.
        @raise BrowserFailed: it failed, or had no result in time.
        """
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while self._count not in self._replies:
            self._read(deadline)
        reply = self._replies.pop(self._count)
        if "error" in reply:
            raise BrowserFailed(f"{method}: {reply['error']['message']}")
        result: dict[str, Any] = reply["result"]
        return result

    def _read(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._in], [], [], left)[0]:
            os.killpg(self.process.pid, signal.SIGKILL)  # the next page has another one
            raise BrowserFailed("the browser does not answer")
        data = os.read(self._in, 1 << 20)
        if not data:
            self.process.wait()
            raise BrowserFailed("the browser has ended")
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._replies[message["id"]] = message
            elif (session := message.get("sessionId")) in self.events:
                self.events[session].append((message["method"], message["params"]))


class Browser:
    """
    A page in a browser, with an empty profile of its own.
    """

    def __init__(self, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1.0) -> None:
        """
        @param width: the width of the page, in CSS pixels.
        @param height: the height of the page, in CSS pixels.
        @param dark: whether the page is shown in the user's preferred colour scheme C{dark}.
        @param scale: the number of screenshot pixels for one CSS pixel.
        """
        self._size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": scale}
        self._dark = dark

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """
        Open an empty page.
        """
        chromium = self._chromium = Chromium.shared()
        self._profile = chromium.call("Target.createBrowserContext")["browserContextId"]
        page = chromium.call("Target.createTarget", url="about:blank", browserContextId=self._profile)
        attached = chromium.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        chromium.events[self._session] = []
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", mobile=self._size["width"] < 600, **self._size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        return self

    def stop(self) -> None:
        """
        Close the page, and forget its profile.
        """
        if self._chromium.process.poll() is None:
            self._chromium.call("Target.disposeBrowserContext", browserContextId=self._profile)
        self._chromium.events.pop(self._session, None)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._chromium.call(method, self._session, **parameters)

    @property
    def errors(self) -> list[str]:
        """
        The errors of the page: exceptions, and violations of its content security policy.
        """
        found = []
        for method, parameters in self._chromium.events[self._session]:
            if method == "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                entry = parameters["entry"]
                found.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        return found

    # -- The page

    def open(self, url: str) -> None:
        """
        Load a page.
        """
        self._call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """
        @return: the value of a JavaScript expression in the page, converted by JSON.
        """
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserFailed(f"{expression}: {result['exceptionDetails']['text']}")
        return result["result"].get("value")

    def until(self, expression: str, timeout: float = PATIENCE) -> Any:
        """
        Wait until a JavaScript expression is true.

        @return: its value.
        @raise BrowserFailed: it is not true after C{timeout} seconds.
        """
        deadline = time.monotonic() + timeout
        while not (value := self.value(expression)):
            if time.monotonic() > deadline:
                shown = self.value("document.body && document.body.innerText")
                raise BrowserFailed(f"not within {timeout:g} s: {expression}; the page shows:\n{shown}")
            time.sleep(0.1)
        return value

    def point(self, x: float, y: float) -> None:
        """
        Move the mouse to a position of the page, in CSS pixels.
        """
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """
        Press and release a key, such as C{"Tab"}, C{"Enter"} or C{"ArrowLeft"}.
        """
        named: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        self._call("Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else "", **named)
        self._call("Input.dispatchKeyEvent", type="keyUp", **named)

    def screenshot(self, path: Path | str, whole: bool = True) -> None:
        """
        Save a screenshot of the page as a PNG file.

        @param whole: whether to include the parts that do not fit on the screen.
        """
        picture = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        if whole:
            size = self._call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": self._size["width"], "height": size["height"], "scale": 1}
            picture = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(picture["data"]))
