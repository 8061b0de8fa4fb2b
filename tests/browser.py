"""Screenshots by a real browser that look the same on every machine: headless Chromium, driven over a pipe.

What differs between machines is pinned: fonts (`FONTS`, and no others), their hinting, the colour profile, the scale, the
colour scheme. Nothing is fetched from outside: `pictures` answers for images of other hosts, all else is blocked.

The DevTools protocol speaks JSON with a NUL behind each message, on file descriptors 3 (to the browser) and 4 (from it).
"""

import base64
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from services import Missing

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
#: Seconds the browser may take for one answer; it takes 1 to start, and a tenth for a page.
PATIENCE = 30.0
#: How often a browser that does not come up is started again.
STARTS = 3
#: Where a page that is given as HTML stands. The name leads nowhere (RFC 6761): the harness answers for it.
SHOWN = "http://shown.test/"
#: The browser asks for it when it likes, even after a page was left: answered, and held against no page.
ICON = SHOWN + "favicon.ico"
LOOPBACK = {"127.0.0.1", "localhost"}


class Font(NamedTuple):
    """A font file of a Debian package, known by its SHA-256."""

    file: str
    sha256: str
    package: str


FONTS = (
    Font(
        "NotoSansCJK-Regular.ttc",
        "b76b0433203017ca80401b2ee0dd69350349871c4b19d504c34dbdd80541690a",
        "fonts-noto-cjk 1:20220127+repack1-1",
    ),
    Font(
        "NotoSansCJK-Bold.ttc",
        "faa5f3656a78b2e2d450d27fe8382c778bc2b6bb5ea29c986664a6a435056ceb",
        "fonts-noto-cjk 1:20220127+repack1-1",
    ),
    Font(
        "NotoColorEmoji.ttf",
        "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec",
        "fonts-noto-color-emoji 2.042-0+deb12u1",
    ),
)
FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")
#: Every family is one of these two; named ones that are not there fall through to them.
FAMILIES = {
    "Noto Sans CJK SC": ("sans-serif", "serif", "system-ui", "cursive", "fantasy", "sans"),
    "Noto Sans Mono CJK SC": ("monospace", "ui-monospace", "mono"),
}

FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root, and containers without user namespaces, have none; all that is shown is ours
    "--disable-gpu",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    "--disable-lcd-text",
    "--disable-font-subpixel-positioning",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",
    "--lang=en-US",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)

#: Everything a picture of the page waits for.
SETTLED = """(async () => {
  const pictures = [...document.images].filter((image) => !image.complete);
  const loaded = pictures.map((image) => new Promise((done) => { image.onload = image.onerror = done; }));
  for (const image of pictures) image.loading = "eager";  // also those that are never scrolled to
  await Promise.all(loaded);
  await document.fonts.ready;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
})()"""

#: Keys by name: what the DevTools protocol wants to know of them.
KEYS: Mapping[str, Mapping[str, Any]] = {
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Space": {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
    "ArrowDown": {"key": "ArrowDown", "code": "ArrowDown", "windowsVirtualKeyCode": 40},
}
#: What a screen reader would call the element that has the focus.
FOCUSED = """(() => {
  const element = document.activeElement;
  return element.getAttribute("aria-label") || (element.labels?.[0] ?? element).textContent.trim();
})()"""
#: More elements than any page of ours has to walk through.
MOST_TABS = 60

#: URL of an image → its PNG, or None for one that cannot be had.
Pictures = Callable[[str], bytes | None]


class BrowserError(Exception):
    """The browser refused, or a page did not become what the test waits for."""


@contextmanager
def browser(pictures: Pictures = lambda _url: None) -> Iterator["Chrome"]:
    """A browser, for many pictures. Raises services.Missing without Chromium or the pinned fonts."""
    program, fonts = find_program(), find_fonts()
    for left in reversed(range(STARTS)):
        with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as scratch:
            process, to_it, from_it = start(program, font_config(Path(scratch), fonts), Path(scratch))
            chrome = Chrome(to_it, from_it, pictures)
            try:
                if is_open(chrome, give_up=not left):
                    yield chrome
                    return
            finally:
                chrome.close()
                end(process, to_it, from_it)


def is_open(chrome: "Chrome", *, give_up: bool) -> bool:
    """Whether it came up; on a busy machine one start in many does not."""
    try:
        chrome.open()
    except (BrowserError, BrokenPipeError):
        if give_up:
            raise
        return False
    return True


def find_program() -> str:
    """Raises Missing."""
    if found := next((path for name in PROGRAMS if (path := shutil.which(name))), None):
        return found
    raise Missing(
        f"no {', '.join(PROGRAMS)} on the PATH: install Chromium (Debian: apt-get install chromium)"
    )


def find_fonts() -> list[Path]:
    """The pinned files. Raises Missing for one that is not there, or is another version."""
    return [find_font(font) for font in FONTS]


def find_font(font: Font) -> Path:
    """Raises Missing."""
    found = [path for folder in FONT_FOLDERS for path in folder.rglob(font.file)]
    for path in found:
        if hashlib.sha256(path.read_bytes()).hexdigest() == font.sha256:
            return path
    state = f"{found[0]} is another version" if found else f"no {font.file}"
    raise Missing(f"{state}: the pictures are drawn with that of Debian's {font.package}; install it")


def font_config(folder: Path, fonts: list[Path]) -> Path:
    """A fontconfig file that knows these fonts alone."""
    (folder / "fonts").mkdir()
    for path in fonts:
        (folder / "fonts" / path.name).symlink_to(path)
    aliases = "".join(
        f'<match target="pattern"><test name="family"><string>{name}</string></test>'
        f'<edit name="family" mode="assign" binding="same"><string>{family}</string></edit></match>'
        for family, names in FAMILIES.items()
        for name in names
    )
    rendering = "".join(
        f'<edit name="{name}" mode="assign">{value}</edit>'
        for name, value in {
            "antialias": "<bool>true</bool>",
            "hinting": "<bool>false</bool>",
            "autohint": "<bool>false</bool>",
            "hintstyle": "<const>hintnone</const>",
            "rgba": "<const>none</const>",
        }.items()
    )
    config = folder / "fonts.conf"
    config.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f"<dir>{folder}/fonts</dir><cachedir>{folder}/font-cache</cachedir>"
        f'{aliases}<match target="font">{rendering}</match></fontconfig>',
        "utf-8",
    )
    return config


def start(program: str, fonts: Path, scratch: Path) -> tuple[subprocess.Popen[bytes], int, int]:
    """(the process, a descriptor to write to it, one to read from it)."""
    its_in, to_it = (above_nine(end) for end in os.pipe())
    from_it, its_out = (above_nine(end) for end in os.pipe())

    def place() -> None:
        os.dup2(its_in, 3)
        os.dup2(its_out, 4)

    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={scratch}/profile", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "FONTCONFIG_FILE": str(fonts),
                "HOME": str(scratch),
                "TZ": "UTC",
                "LANG": "C.UTF-8",
            },
            pass_fds=(3, 4),
            preexec_fn=place,  # noqa: PLW1509 - two system calls; the numbers 3 and 4 are the browser's choice
            start_new_session=True,
        )
    os.close(its_in)
    os.close(its_out)
    return process, to_it, from_it


def above_nine(descriptor: int) -> int:
    """The same end of a pipe under a number that 3 and 4 cannot overwrite."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


def end(process: subprocess.Popen[bytes], to_it: int, from_it: int) -> None:
    """Waits for one that was told to close, with all its processes; one that does not is killed."""
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    os.close(to_it)
    os.close(from_it)


class Chrome:
    """One tab. Made by `browser()`."""

    def __init__(self, to_it: int, from_it: int, pictures: Pictures) -> None:
        self._to_it, self._from_it, self._pictures = to_it, from_it, pictures
        self._rest, self._number, self._session, self._html, self._width = b"", 0, "", "", 0
        self._loads = 0
        #: URLs that pages asked for, and what the console said of them: `forget` empties both.
        self.requested: list[str] = []
        self.complaints: list[str] = []

    def open(self) -> None:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Fetch.enable", patterns=[{"urlPattern": "*"}])
        self._call("Log.enable")
        self._call("Runtime.enable")
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self) -> None:
        with suppress(BrokenPipeError):  # it may have ended by itself
            self._send("Browser.close", {})

    def screenshot(
        self,
        page: str,
        *,
        width: int,
        height: int = 800,
        dark: bool = False,
        full_page: bool = True,
        selector: str = "",
        ready: str = "true",
    ) -> bytes:
        """A PNG of a page: HTML, or a URL on loopback. `selector` takes one element; `ready` is waited for (JavaScript)."""
        self.show(page, width=width, height=height, dark=dark, ready=ready)
        return self.capture(selector=selector, full_page=full_page)

    def capture(self, *, selector: str = "", full_page: bool = True) -> bytes:
        """A PNG of the page that is open."""
        if full_page:
            size = self._call("Page.getLayoutMetrics")["cssContentSize"]
            self._resize(self._width, int(size["height"]))
            self.evaluate(SETTLED)
        clip = {"clip": {**self._box(selector), "scale": 1}} if selector else {}
        return base64.b64decode(
            self._call("Page.captureScreenshot", format="png", optimizeForSpeed=True, **clip)["data"]
        )

    def show(
        self, page: str, *, width: int, height: int = 800, dark: bool = False, ready: str = "true"
    ) -> None:
        """Opens a page and waits until it stands still."""
        self._resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._call("Emulation.setEmulatedMedia", media="", features=[scheme, motion])
        is_url = page.startswith(("http://", "data:"))
        self._html = "" if is_url else page
        self._call("Page.navigate", url=page if is_url else SHOWN)
        self._wait("Page.loadEventFired")
        self.wait_until(ready)
        self.evaluate(SETTLED)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, as if a person had clicked. Raises BrowserError."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if problem := answer.get("exceptionDetails"):
            raise BrowserError(f"{script}: {problem.get('exception', problem).get('description', problem)}")
        return answer["result"].get("value")

    def wait_until(self, script: str) -> None:
        """Until the expression holds. Raises BrowserError when it does not within PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({script})"):
            if time.monotonic() > deadline:
                raise BrowserError(f"it never came true: {script}")
            time.sleep(0.02)

    # What a person does

    def press(self, key: str) -> None:
        """One of KEYS, down and up."""
        self._call("Input.dispatchKeyEvent", type="keyDown", **KEYS[key])
        self._call("Input.dispatchKeyEvent", type="keyUp", **{**KEYS[key], "text": ""})

    def type(self, text: str) -> None:
        """Into the field that has the focus."""
        self._call("Input.insertText", text=text)

    def tab_to(self, name: str) -> None:
        """Walks with the Tab key to what is called so, wherever the focus is. Raises BrowserError."""
        for _ in range(MOST_TABS):
            self.press("Tab")
            if name in self.evaluate(FOCUSED):
                return
        raise BrowserError(f"the Tab key leads to nothing that is called {name!r}")

    def follow(self, key: str = "Enter") -> None:
        """Presses a key that opens another page, and waits until that stands still. Raises BrowserError."""
        before = self._loads
        self.press(key)
        while self._loads == before:
            self._answer(self._read())
        self.evaluate(SETTLED)

    def forget(self) -> None:
        """Nothing was asked for, nothing said."""
        self.requested.clear()
        self.complaints.clear()

    def allow(self, *permissions: str) -> None:
        """Such as "clipboardReadWrite": what the browser would ask a person."""
        self._call("Browser.grantPermissions", permissions=list(permissions))
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)

    def _resize(self, width: int, height: int) -> None:
        self._width = width
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def _box(self, selector: str) -> Mapping[str, float]:
        rectangle: Mapping[str, float] | None = self.evaluate(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)})?.getBoundingClientRect();"
            " return found && { x: found.x + scrollX, y: found.y + scrollY, width: found.width, height: found.height } })()"
        )
        if rectangle is None:
            raise BrowserError(f"no element is {selector}")
        return rectangle

    # The protocol

    def _call(self, method: str, **parameters: Any) -> Any:
        number = self._send(method, parameters)
        while True:
            message = self._read()
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._answer(message)

    def _wait(self, event: str) -> None:
        while (message := self._read()).get("method") != event:
            self._answer(message)
        self._answer(message)

    def _send(self, method: str, parameters: Mapping[str, Any]) -> int:
        self._number += 1
        session = {"sessionId": self._session} if self._session and not method.startswith("Browser.") else {}
        message = {"id": self._number, "method": method, "params": parameters, **session}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to_it, data) :]
        return self._number

    def _read(self) -> Mapping[str, Any]:
        while b"\0" not in self._rest:
            readable, _, _ = select.select([self._from_it], [], [], PATIENCE)
            piece = os.read(self._from_it, 1 << 20) if readable else b""
            if not piece:
                raise BrowserError(
                    "the browser " + ("has ended" if readable else f"said nothing for {PATIENCE} s")
                )
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: Mapping[str, Any] = json.loads(line)
        return message

    def _answer(self, message: Mapping[str, Any]) -> None:
        """Each request of a page waits here for what becomes of it; the rest is written down."""
        method, paused = message.get("method"), message.get("params", {})
        if method != "Fetch.requestPaused":
            self._loads += method == "Page.loadEventFired"
            self.complaints += complaints(str(method), paused)
            return
        url, request = paused["request"]["url"], {"requestId": paused["requestId"]}
        if url == ICON:
            self._send("Fetch.fulfillRequest", request | fulfilled("image/x-icon", b""))
            return
        self.requested.append(url)
        if url == SHOWN and self._html:
            self._send(
                "Fetch.fulfillRequest", request | fulfilled("text/html; charset=utf-8", self._html.encode())
            )
        elif urlsplit(url).hostname in LOOPBACK or url.startswith(("data:", "blob:")):
            self._send("Fetch.continueRequest", request)
        elif paused["resourceType"] == "Image" and (picture := self._pictures(url)):
            self._send("Fetch.fulfillRequest", request | fulfilled("image/png", picture))
        else:
            self._send("Fetch.failRequest", request | {"errorReason": "BlockedByClient"})


def complaints(method: str, told: Mapping[str, Any]) -> list[str]:
    """What an event of the browser complains of: broken policies, errors of scripts, requests that failed."""
    if method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
        return [f"{told['entry']['text']} {told['entry'].get('url', '')}".strip()]
    if method == "Runtime.exceptionThrown":
        return [str(told["exceptionDetails"].get("text"))]
    if method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
        return [" ".join(str(each.get("value")) for each in told["args"])]
    return []


def fulfilled(kind: str, body: bytes) -> dict[str, Any]:
    return {
        "responseCode": 200,
        "responseHeaders": [{"name": "Content-Type", "value": kind}],
        "body": base64.b64encode(body).decode(),
    }
