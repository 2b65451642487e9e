"""A house with a password: who is let in, as what, for how long; and in an open one, who is its owner."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import openai
import pytest
from markupsafe import Markup
from starlette.types import Scope

from engines.messages import Generate
from engines.settings import Settings
from tests.support.guarded import REACHABLE, echo, example
from tests.support.http import X_CREDIT, Session, ask, refused, succeeded
from tests.support.server import PASSWORD
from webui.connections import RELAYED, Forwarded, is_this_machine
from webui.i18n import words
from webui.people.admission import OPEN_BELOW, OPEN_PATHS, Admission, People
from webui.people.passes import COOKIE
from webui.people.password import FREE

if TYPE_CHECKING:
    from tests.support.server import Rig

EN, ZH = words("en"), words("zh")
BROWSER = {"accept": "text/html,*/*;q=0.8", "accept-language": "en"}


@pytest.fixture
def browser(closed: Rig) -> Iterator[httpx.Client]:
    """Somebody at the door, who has not tried any password yet."""
    closed.app.app.people.attempts.forget("127.0.0.1")  # type: ignore[attr-defined]
    with httpx.Client(base_url=closed.url, headers=BROWSER) as client:
        yield client


def log_in(browser: httpx.Client, password: str = PASSWORD) -> httpx.Response:
    return browser.post("/login", data={"password": password})


def invitation(browser: httpx.Client) -> str:
    """The link that the owner's page shows, from the address on."""
    text = browser.get("/invite").text
    return "/join/" + text.partition("/join/")[2].partition("<")[0]


# ---- nobody


@pytest.mark.parametrize("path", sorted(REACHABLE))
def test_whoever_has_no_password_is_let_in_nowhere(closed: Rig, path: str) -> None:
    """Every route that the guard lets through, as a program and as a browser asks."""
    asked = example(path)
    for method in ("GET", "POST", "DELETE"):
        answer = closed.client.request(method, asked)
        if asked in OPEN_PATHS or asked.startswith(OPEN_BELOW):
            assert "login_needed" not in answer.text
        else:
            assert answer.headers["www-authenticate"] == "Bearer"
            refused(answer, 401, "login_needed")


def test_what_is_open_says_nothing_of_anybody(closed: Rig) -> None:
    closed.queue.submit(Generate("private words"))
    for path in OPEN_PATHS:
        answer = closed.client.get(path if not path.endswith("/") else path + "x")
        assert "private" not in answer.text and answer.status_code in (200, 403, 404, 405, 410, 503), path
    assert closed.client.get("/me").json() == {"role": None}
    assert "set-cookie" not in closed.client.get("/me").headers


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_a_browser_is_shown_the_door(closed: Rig, language: str, say: Any) -> None:
    answer = closed.client.get("/", headers={**BROWSER, "accept-language": language})
    assert answer.status_code == 401 and answer.headers["cache-control"] == "no-store"
    assert Markup.escape(say("door_ask")) in answer.text and 'type="password"' in answer.text
    assert 'fetch("/me")' in answer.text, "whoever comes by a link from elsewhere is in already"
    assert answer.headers["x-credit"] == X_CREDIT and "科哥" in answer.text


# ---- the password


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/frame", "/frame"),
        ("/frame?show=folder:%E5%81%87%E6%97%A5&clock=1", "/frame?show=folder:%E5%81%87%E6%97%A5&clock=1"),
        ("/frame/list", "/"),
        ("//evil.example/frame", "/"),
        ("/frame?x=//evil.example", "/"),
        ("/frame\r\nSet-Cookie: a=b", "/"),
        ("https://evil.example/frame", "/"),
        ("", "/"),
    ],
)
def test_a_login_leads_to_the_frame_if_that_was_asked_for(browser: httpx.Client, asked: str, led: str) -> None:
    answer = browser.post("/login", data={"password": PASSWORD, "to": asked})
    assert (answer.status_code, answer.headers["location"]) == (303, led)
    wrong = browser.post("/login", data={"password": "no", "to": asked})
    assert wrong.status_code == 401 and f'name="to" value="{Markup.escape(led)}"' in wrong.text


def test_the_door_remembers_what_was_asked_for(browser: httpx.Client) -> None:
    text = browser.get("/frame?show=album&clock=1").text
    assert 'name="to" value="/frame?show=album&amp;clock=1"' in text


def test_the_password_makes_an_owner(browser: httpx.Client) -> None:
    answer = log_in(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert browser.get("/me").json() == {"role": "owner"}
    assert "gradio" in browser.get("/").text
    assert browser.get("/jobs").json() == {"jobs": []}
    assert browser.post("/logout").status_code == 303
    assert browser.get("/").status_code == 401


@pytest.mark.parametrize(
    "body", [{}, {"password": ""}, {"password": "open"}, {"other": PASSWORD}, {"password": "x" * 900}]
)
def test_another_word_lets_nobody_in(browser: httpx.Client, body: dict[str, str]) -> None:
    answer = browser.post("/login", data=body)
    assert answer.status_code == 401 and EN("door_wrong") in answer.text
    assert COOKIE not in browser.cookies


def test_a_password_is_no_file(browser: httpx.Client) -> None:
    assert browser.post("/login", files={"password": ("a", PASSWORD.encode())}).status_code in (400, 401)
    assert COOKIE not in browser.cookies


def test_guessing_is_refused_before_it_is_looked_at(browser: httpx.Client) -> None:
    assert [log_in(browser, "guess").status_code for _ in range(FREE)] == [401] * FREE
    late = log_in(browser)
    assert late.status_code == 429 and 0 < int(late.headers["retry-after"]) <= 60
    assert EN("door_later", seconds=late.headers["retry-after"]) in late.text


def test_another_site_cannot_log_anybody_in(browser: httpx.Client) -> None:
    answer = browser.post("/login", data={"password": PASSWORD}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403 and COOKIE not in browser.cookies


def test_a_new_password_ends_what_the_old_one_gave(closed: Rig, browser: httpx.Client) -> None:
    log_in(browser)
    header = [("host", "localhost"), ("cookie", f"{COOKIE}={browser.cookies[COOKIE]}")]
    for password, status in ((PASSWORD, 200), ("another one", 401), ("", 200)):
        people = People.of(replace(closed.settings, password=password))
        assert ask(Admission(echo, people), "GET", "/", header).status == status


# ---- guests


def test_an_invitation_makes_a_guest_who_draws_and_builds_nothing(closed: Rig, browser: httpx.Client) -> None:
    log_in(browser)
    link = invitation(browser)
    with httpx.Client(base_url=closed.url, headers=BROWSER) as guest:
        welcome = guest.get(link)
        assert welcome.status_code == 200 and EN("door_welcome") in welcome.text
        assert 'http-equiv="refresh"' in welcome.text and "location" not in welcome.headers
        assert guest.get("/me").json() == {"role": "guest"}
        asked = {"json": {"prompt": "x"}, "headers": {"prefer": "respond-async"}}
        address = guest.post("/generate", **asked).headers["location"]
        assert guest.delete(address).status_code == 200
        refused(guest.get("/invite", headers={"accept": "*/*"}), 403, "owner_only")
        with Session(closed.url, "en", of=guest) as page:
            fetch = page.endpoint("fetch")
            said = page.call(fetch, page.values(fetch), {"model": "gpen-256", "mirror": "hf"})
            assert not succeeded(said)


def test_a_phone_reads_the_invitation_from_the_screen(browser: httpx.Client) -> None:
    log_in(browser)
    page = browser.get("/invite").text
    link = re.search(r"<code>(.+?)</code>", page)
    code = re.search(r'<img class="qr" src="data:image/png;base64,(.+?)"', page)
    assert link and code
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(code[1]), np.uint8), cv2.IMREAD_GRAYSCALE)
    read, *_ = cv2.QRCodeDetectorAruco().detectAndDecode(picture)
    assert read == link[1] and "/join/" in read


def test_an_owner_who_follows_an_invitation_stays_one(browser: httpx.Client) -> None:
    log_in(browser)
    assert browser.get(invitation(browser)).status_code == 200
    assert browser.get("/me").json() == {"role": "owner"}


def test_an_invitation_ends(closed: Rig, browser: httpx.Client) -> None:
    people: People = closed.app.app.people  # type: ignore[attr-defined]
    assert people.password is not None
    for text in (people.passes.invitation(-0.01, people.password.key), people.passes.invitation(1, ""), "x"):
        answer = browser.get(f"/join/{text}")
        assert answer.status_code == 403 and EN("door_ended") in answer.text and COOKIE not in browser.cookies


def test_a_guest_goes_when_the_invitation_ends(closed: Rig, browser: httpx.Client, monkeypatch: Any) -> None:
    log_in(browser)
    link = invitation(browser)
    with httpx.Client(base_url=closed.url, headers=BROWSER) as guest:
        guest.get(link)
        assert guest.get("/").status_code == 200
        now = time.time()
        monkeypatch.setattr("webui.people.passes.time.time", lambda: now + 25 * 3600)
        assert guest.get("/").status_code == 401


def test_who_leaves_a_screen_is_somebody_new_with_the_same_rights(browser: httpx.Client) -> None:
    log_in(browser)
    before = browser.cookies[COOKIE]
    assert browser.post("/leave").status_code == 204
    assert browser.cookies[COOKIE] != before and browser.get("/me").json() == {"role": "owner"}


# ---- programs


def test_a_program_comes_with_its_token(closed: Rig) -> None:
    from webui.people.tokens import Tokens

    token = Tokens(closed.settings.state / "tokens.json").add("program")
    with httpx.Client() as http:
        client = openai.OpenAI(api_key=token, base_url=f"{closed.url}/v1", http_client=http)
        assert "portrait" in [model.id for model in client.models.list()]
        with pytest.raises(openai.AuthenticationError):
            list(openai.OpenAI(api_key="sk-x", base_url=f"{closed.url}/v1", http_client=http).models.list())
    basic = httpx.BasicAuth("webui", token)
    assert closed.client.get("/sdapi/v1/sd-models", auth=basic).status_code == 200
    assert closed.client.get("/metrics", headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert closed.client.get("/me", headers={"authorization": f"Bearer {token}"}).json() == {"role": "guest"}
    frame = f"/frame/image.jpg?token={token}"
    assert closed.client.get(frame).json()["code"] == "not_found"  # it is in, and there is no picture yet
    assert closed.client.get(f"/frame/list?token={token}").status_code == 401  # nowhere but where nothing else goes
    Tokens(closed.settings.state / "tokens.json").revoke("program")
    assert closed.client.get(frame).status_code == 401
    assert closed.client.get("/metrics", headers={"authorization": f"Bearer {token}"}).status_code == 401


# ---- an open house


@pytest.mark.parametrize(
    ("client", "server", "ours"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 7860), True), (("::1", 1), ("::1", 7860), True),
        (("::ffff:127.0.0.1", 1), ("::", 7860), True), (("192.168.1.5", 1), ("192.168.1.5", 7860), True),
        (("192.168.1.9", 1), ("192.168.1.5", 7860), False), (("172.17.0.1", 1), ("172.17.0.2", 7860), False),
        (("testclient", 1), None, False), (None, ("192.168.1.5", 7860), False), (("fe80::1", 1), None, False),
    ],
)  # fmt: skip
def test_who_sits_at_the_machine(client: Any, server: Any, ours: bool) -> None:
    assert is_this_machine({"client": client, "server": server}) is ours
    assert is_this_machine({"client": client, "server": server, RELAYED: True}) is False


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "x-forwarded-proto"])
def test_a_proxy_at_the_machine_that_nobody_has_named_is_not_its_owner(header: str) -> None:
    seen: list[Scope] = []

    async def look(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)
        await echo(scope, receive, send)

    async def at_the_machine(scope: Scope, receive: Any, send: Any) -> None:
        await Forwarded(look, ())({**scope, "client": ("127.0.0.1", 1)}, receive, send)

    ask(at_the_machine, "GET", "/", [("host", "localhost")])
    ask(at_the_machine, "GET", "/", [("host", "localhost"), (header, "for=203.0.113.9")])
    assert [is_this_machine(scope) for scope in seen] == [True, False]


@pytest.mark.parametrize("said", [[], [("x-forwarded-for", "127.0.0.1")], [("x-forwarded-for", "203.0.113.9")]])
def test_nor_is_one_that_was_named(said: list[tuple[str, str]]) -> None:
    """It asks for anybody, whatever it says, and also where it says nothing."""
    seen: list[Scope] = []

    async def look(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)
        await echo(scope, receive, send)

    async def by_the_proxy(scope: Scope, receive: Any, send: Any) -> None:
        await Forwarded(look, ("127.0.0.1",))({**scope, "client": ("127.0.0.1", 1)}, receive, send)

    ask(by_the_proxy, "GET", "/", [("host", "localhost"), *said])
    assert [is_this_machine(scope) for scope in seen] == [False]


def test_in_an_open_house_others_are_guests(tmp_path: Path) -> None:
    people = People.of(Settings(home=tmp_path))
    at = {"type": "http", "headers": [], "server": ("192.168.1.5", 7860)}
    here, there = (people.person({**at, "client": (address, 1)}) for address in ("127.0.0.1", "192.168.1.9"))
    assert here is not None and here.is_owner
    assert there is not None and not there.is_owner and there.id == ""
