"""A real browser for tests: Chromium by its DevTools protocol, through two pipes, without a driver or a port."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_SECONDS = 60
"""For an answer of the browser, on a machine with other work."""
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--force-prefers-reduced-motion", "--remote-debugging-pipe",
)  # fmt: skip


@contextmanager
def chromium(folder: Path) -> Iterator["Browser"]:
    """Start a browser whose profile is a folder, and end it."""
    # The browser reads from its descriptor 3 and writes to 4; above 9 the pipes' own ends cannot be one of these.
    theirs_in, ours_out, ours_in, theirs_out = (
        fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in (os.pipe(), os.pipe()) for end in pipe
    )

    def place() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    environment = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = subprocess.Popen(
        [str(PROGRAM), *_OPTIONS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        env=environment, pass_fds=(3, 4), preexec_fn=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_in, ours_out)
    finally:
        process.terminate()
        process.wait(_SECONDS)
        os.close(ours_in)
        os.close(ours_out)


class Browser:
    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        """What the browser has reported, the oldest first."""

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return the browser's answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._writes, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str, **values: Any) -> dict[str, Any]:
        """Wait until the browser reports an event whose parameters have these values."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if event["method"] == method and values.items() <= event["params"].items():
                    return event["params"]
            seen = len(self.events)
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reads], [], [], _SECONDS)
            assert ready, "the browser does not answer"
            read = os.read(self._reads, 1 << 20)
            assert read, "the browser has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Browser, width: int = 1280, height: int = 800, *, is_phone: bool = False) -> None:
        self.browser = browser
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._target = target
        self._first_event = len(browser.events)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        scale = 2 if is_phone else 1
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )

    def close(self) -> None:
        self.browser.send("Target.closeTarget", targetId=self._target)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.send(method, self._session, **parameters)

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file and wait until it is loaded."""
        self._first_event = len(self.browser.events)
        self.send("Page.navigate", url=path.as_uri() + fragment)
        self.run("new Promise((done) => document.readyState === 'complete' ? done() : (window.onload = done))")

    def run(self, code: str) -> Any:
        """Evaluate JavaScript as by a user's click, wait for its promise, and return its value."""
        answer = self.send(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until JavaScript is true."""
        self.run(
            "new Promise((done) => { const look = () => (" + condition + ") ? done() : setTimeout(look, 10); look(); })"
        )

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        codes = {"Enter": 13, "Backspace": 8, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, " ": 32}
        code = codes.get(key, ord(key.upper()[0]))
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=code,
            )  # fmt: skip

    def problems(self) -> list[str]:
        """The exceptions of the page and the files that it misses, since it was opened."""
        return [
            str(each["params"])
            for each in self._own()
            if each["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]

    def requests(self) -> list[str]:
        """The addresses of all that the page has asked for since it was opened."""
        sent = (each["params"] for each in self._own() if each["method"] == "Network.requestWillBeSent")
        return [each["request"]["url"] for each in sent]

    def picture(self, path: Path) -> None:
        """Store what the page looks like."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def _own(self) -> list[dict[str, Any]]:
        self.run("0")  # what was reported before has come then
        return [each for each in self.browser.events[self._first_event :] if each.get("sessionId") == self._session]
