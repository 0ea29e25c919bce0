"""Drives a headless Chromium through its DevTools pipe, without any other package."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
from contextlib import contextmanager

MAX_SECONDS = 180  # then whoever still waits for it is told that it is gone
NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")


def find_browser():
    """Path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a browser.

    Commands are JSON ended by a zero byte, on the pipes that Chromium reads and writes
    where it is started with --remote-debugging-pipe: file descriptors 3 and 4.
    """

    def __init__(self, to_browser, from_browser):
        self._to, self._from = to_browser, from_browser
        self._next, self._session = 0, None
        self.errors = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")

    def call(self, method, **params):
        """Send a command and wait for its answer."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._read()).get("id") != self._next:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        text = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser is gone"
            text += byte
        message = json.loads(text)
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(message["params"]["exceptionDetails"])
        return message

    def open(self, address, *, width=1280, height=900, dark=False):
        """Load a page, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        self.call("Page.navigate", url=address)
        self.until_loaded()

    def until_loaded(self):
        """Wait until the next page is loaded."""
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def run(self, script):
        """The value of an expression, once it is settled."""
        found = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition):
        """Wait, in the page and for ten seconds at most, until a condition holds."""
        return self.run(
            "new Promise((done, fail) => { const end = Date.now() + 10000;"
            "const ask = () => { const found = (" + condition + ");"
            "if (found) done(found); else if (Date.now() > end) fail(new Error("
            "'never came true')); else setTimeout(ask, 20); }; ask(); })"
        )

    def key(self, name):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def click(self, x, y):
        """Press and release the mouse at a place of the window [px]."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                buttons=1,
                clickCount=1,
            )

    def picture(self, path=None, *, whole=False):
        """A screenshot as PNG, of the window or of the whole page."""
        taken = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )
        content = base64.b64decode(taken["data"])
        if path is not None:
            path.write_bytes(content)
        return content


@contextmanager
def browsing():
    """A fresh browser without network, ended afterwards."""
    to_child, to_browser = os.pipe()
    from_browser, from_child = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            str(find_browser()),
            "--headless",
            "--no-sandbox",  # as root, which is what containers run as
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "about:blank",
        ]
        # the shell moves the pipes to where Chromium looks for them
        script = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(to_child, from_child),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        limit = threading.Timer(MAX_SECONDS, process.kill)
        limit.start()
        with (
            os.fdopen(to_browser, "wb") as writing,
            os.fdopen(from_browser, "rb") as reading,
        ):
            try:
                yield Browser(writing, reading)
            finally:
                limit.cancel()
                process.terminate()
                process.wait(20)


def opened(browser, page, **rest):
    """The page, once its first viewer has drawn its grey values."""
    browser.open(page.as_uri(), **rest)
    browser.run("document.querySelector('.viewer').scrollIntoView()")
    browser.until("document.querySelector('.viewer').dataset.at")
    browser.until(
        "(() => { const c = document.querySelector('.cut canvas');"
        "const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return all.some((v, i) => i % 4 === 0 && v > 40); })()"
    )
    return browser


def place(browser):
    """The voxel that the first case's planes meet in, z y x."""
    return [
        int(v)
        for v in browser.run("document.querySelector('.viewer').dataset.at").split()
    ]


def turn_first_slider(browser, *, to):
    """Move the slider of the axial plane of the first case."""
    browser.run(
        "(() => { const r = document.querySelector('.cut[data-axis=\"0\"] input');"
        f"r.value = {to}; r.dispatchEvent(new Event('input')); }})()"
    )
