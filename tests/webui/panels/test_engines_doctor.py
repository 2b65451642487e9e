"""The panel of the doctor's lines: for the owner alone, the worst first, and never in the way of the page."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.http import Session, succeeded, tree
from webui.doctor import Line
from webui.i18n import LANGUAGES, words
from webui.panels.engines.doctor import Report, report_html, run

if TYPE_CHECKING:
    from tests.support.server import Rig

EN = words("en")
REPORT: Report = {
    "ok": False,
    "lines": [
        Line("ok", "好 <b>", "fine <b>"),
        Line("error", "坏", "bad"),
        Line("warning", "当心", "careful"),
    ],
}


def looked(page: Session) -> list[dict[str, Any]]:
    return page.call(page.endpoint("examine"), [])


def test_the_owner_is_shown_what_the_doctor_says(rig: Rig) -> None:
    with rig.session("en") as page:
        messages = looked(page)
    assert succeeded(messages), messages
    shown = [str(message["output"]["data"][0]) for message in messages if message["msg"].startswith("process_gen")]
    assert EN("doctor_looking") in shown[0]
    text = "\n".join(tree(shown[-1]).text)
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in text and str(rig.settings.home) in text
    assert "engine ort" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_worst_stands_first_in_the_language_of_the_page(language: str) -> None:
    say = words(language)
    page = tree(report_html(REPORT, say))
    assert [line["class"] for line in page.all("li")] == ["is-error", "is-warning", "is-ok"]
    assert say("doctor_ill") in page.text and ("bad" in str(page.text)) == (language == "en")
    assert not page.all("b"), "what a line names is no markup"
    assert say("doctor_well") in report_html({"ok": True, "lines": []}, say)


def test_guests_are_not_shown_the_machine(closed: Rig) -> None:
    """The pass of an invitation; the owner is asked for the link first."""
    browser = {"accept": "text/html", "origin": closed.url}
    with httpx.Client(base_url=closed.url, headers=browser) as owner, httpx.Client(base_url=closed.url) as guest:
        owner.post("/login", data={"password": "open sesame"})
        link = next(word for word in tree(owner.get("/invite").text).text if "/join/" in word)
        guest.get("/join/" + link.rpartition("/")[2].strip(), headers=browser)
        assert guest.get("/me").json() == {"role": "guest"}
        with Session(closed.url, "en", of=guest) as page:
            messages = looked(page)
    assert not succeeded(messages) and "Python" not in str(messages)


def test_a_doctor_that_says_nothing_is_no_trouble(tmp_path: Path) -> None:
    env = dict(os.environ)
    for code in ("", "print('[]')", "import os; os.abort()", "print('{' * 99999)"):
        assert asyncio.run(run(env, (sys.executable, "-c", code))) is None
    assert EN("doctor_silent") in report_html(None, EN)


def test_a_doctor_that_hangs_is_ended_with_what_it_asks(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); child.wait()"
    )
    begun = time.monotonic()
    assert asyncio.run(run(dict(os.environ), (sys.executable, "-c", code), longest_s=1.5)) is None
    assert time.monotonic() - begun < 10
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}/stat") and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)
