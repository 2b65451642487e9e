"""
Chromium by its own protocol over a pipe, for what is measured over hours: Playwright has the browser record every
request of a page, which grows. Says only what is needed here (chromedevtools.github.io/devtools-protocol).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--disable-dev-shm-usage",
)  # fmt: skip


class DevTools:
    """One page. `loads`: how often one was loaded into it."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands, self._answers, self._number, self._rest = commands, answers, 0, b""
        self._session = ""
        self.loads = 0
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Return the answer. RuntimeError: the browser refuses, or has gone."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": values}
        if self._session:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while True:
            message = json.loads(self._message())
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return dict(message["result"])
            self.loads += message.get("method") == "Page.loadEventFired"

    def _message(self) -> bytes:
        while b"\0" not in self._rest:
            piece = os.read(self._answers.fileno(), 1 << 20)
            if not piece:
                raise RuntimeError("the browser has gone")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return message

    def evaluate(self, script: str) -> Any:
        """Return what it comes to, as JSON has it. RuntimeError: it throws."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:300])
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """Return what is on the screen, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])


@contextmanager
def opened(browser: str, width: int, height: int, flags: Sequence[str] = ()) -> Iterator[DevTools]:
    """A browser with one empty page of this size, which ends with the block."""
    (commands_in, commands), (answers, answers_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [*FLAGS, *flags, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        process = subprocess.Popen(  # which reads from 3 and writes to 4
            ["bash", "-c", f'exec "$0" "$@" 3<&{commands_in} 4>&{answers_out}', browser, *arguments],
            pass_fds=(commands_in, answers_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands_in)
        os.close(answers_out)
        with open(commands, "wb") as writing, open(answers, "rb") as reading:
            try:
                page = DevTools(writing, reading)
                page.send(
                    "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
                )
                yield page
            finally:
                process.terminate()
                process.wait()
