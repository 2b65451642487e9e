"""
A studio behind the reverse proxies that people have, Debian's nginx and Caddy, at the root and below a path: what works
without one works here, and nothing is asked for outside the path.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.browser_window import BROWSER, CHROMIUM, Visit, served
from tests.support.front_proxies import Front, Proxy, before
from tests.support.http import QUICK, encoded, people
from webui import certificates
from webui.certificates import Certificates

pytestmark = BROWSER
PASSWORD = "open sesame"
PROXIES: tuple[Proxy, ...] = ("nginx", "caddy")
FRONTS: tuple[Front, ...] = ("port", "no port", "https")
PATHS = ("", "/studio")
LONG = {"prompt": "a girl with glasses", "steps": 50, "count": 4, "seed": 1}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
Stand = Callable[..., str]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.prepare(
        tmp_path_factory.mktemp("tls"),
        ["localhost"],
        [ip_address("127.0.0.1")],
        datetime.now(UTC).replace(microsecond=0),
    )


@pytest.fixture(scope="module")
def trusting(browser: Any, tls: Certificates) -> Iterator[Any]:
    """A browser that trusts these certificates."""
    flags = [*FLAGS, f"--ignore-certificate-errors-spki-list={certificates.pin(tls.authority)}"]
    chromium = browser.browser_type.launch(executable_path=CHROMIUM, args=flags)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {path: tmp_path_factory.mktemp("home") for path in PATHS}


@pytest.fixture(scope="module")
def studios(homes: dict[str, Path]) -> Iterator[dict[str, str]]:
    """Where a studio listens, by the path that it lies below: one server for each."""
    with ExitStack() as stack:
        common = {"STUDIO_PROXY": "127.0.0.1", "STUDIO_BACKEND": "edge"}
        yield {path: stack.enter_context(served(homes[path], STUDIO_PATH=path, **common)) for path in PATHS}


@pytest.fixture
def stand(tls: Certificates, tmp_path: Path) -> Iterator[Stand]:
    """stand(studio, proxy, front, path): the address of the house behind a proxy."""
    with ExitStack() as stack:

        def stand_before(studio: str, proxy: Proxy, front: Front, path: str, **more: Any) -> str:
            return stack.enter_context(before(studio, proxy, front, tmp_path, tls, path, **more)) + path

        yield stand_before


@pytest.fixture
def client(tls: Certificates) -> Iterator[Callable[[str], httpx.Client]]:
    with ExitStack() as stack:
        trust = ssl.create_default_context(cafile=tls.authority)
        yield lambda url: stack.enter_context(httpx.Client(base_url=url, verify=trust, timeout=300))


def outside(asked: list[str], house: str) -> list[str]:
    """Those of these addresses that lie outside the house."""
    return [url for url in asked if url.startswith("http") and not url.startswith(f"{house}/")]


def noise(mb: float) -> bytes:
    """A photo of that many MB."""
    side = int((mb * 1e6 / 1.17) ** 0.5)
    return encoded(
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)), "JPEG", quality=95
    )


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("path", PATHS, ids=["root", "below"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_the_page_is_all_there(
    trusting: Any, studios: dict[str, str], stand: Stand, tmp_path: Path, proxy: Proxy, path: str, front: Front
) -> None:
    """It draws, with previews on the way, shows pictures, takes a photo of some MB, and has its service worker."""
    house, asked = stand(studios[path], proxy, front, path), []
    visit = Visit(trusting, f"{house}/")
    visit.page.on("request", lambda request: asked.append(request.url))
    answers: list[str] = []
    visit.page.on(
        "response", lambda answer: answers.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )
    visit.open()
    visit.page.evaluate("""() => {
      window.badges = [];
      new MutationObserver(() => {
        const kind = document.querySelector('#stage .badge')?.className;
        if (kind && window.badges.at(-1) !== kind) window.badges.push(kind);
      }).observe(document.querySelector('#stage'), { subtree: true, childList: true, attributes: true });
    }""")
    visit.generate("a girl with glasses")
    visit.until("done")
    kinds = visit.page.evaluate("window.badges")
    assert kinds[0].endswith("is-tiny") and kinds[-1].endswith("is-vae")
    visit.page.wait_for_function("document.querySelector('#stage .frame img').naturalWidth > 0")
    visit.page.wait_for_function(
        "[...document.querySelectorAll('[data-preset] img[src]')].some(i => i.naturalWidth > 0)"
    )

    photo = tmp_path / "photo.jpg"
    photo.write_bytes(noise(4))
    assert 3e6 < photo.stat().st_size < 8e6
    visit.tab(1)
    visit.page.set_input_files("#photo input[type=file]", photo)
    visit.page.wait_for_function("document.querySelector('#photo img')?.naturalWidth > 0")
    visit.tab(2)
    visit.page.wait_for_function("document.querySelector('#history img')?.naturalWidth > 0")

    scope = visit.page.evaluate("navigator.serviceWorker.ready.then((worker) => worker.scope)")
    assert scope == f"{house}/"
    manifest = visit.page.evaluate(
        "fetch(document.querySelector('[rel=manifest]').href).then((answer) => answer.json())"
    )
    assert manifest["start_url"] == manifest["id"] == f"{path}/"
    visit.page.goto(f"{house}/frame?seconds=5")
    visit.page.wait_for_function("document.querySelector('#note') && (note.innerText || wall.innerText !== undefined)")
    visit.page.wait_for_function(
        "performance.getEntriesByType('resource').some(({ name }) => name.includes('/frame/state'))"
    )
    visit.page.goto(f"{house}/docs")
    visit.page.wait_for_selector("details")
    assert outside(asked, house) == []
    assert answers == [] and visit.complaints == []
    visit.context.set_offline(True)
    visit.page.goto(f"{house}/?tab=history")
    assert "没有开机" in visit.page.inner_text("main")
    visit.close()


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("path", PATHS, ids=["root", "below"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_programs_hear_of_each_step_as_it_happens(
    studios: dict[str, str], stand: Stand, client: Any, proxy: Proxy, path: str, front: Front
) -> None:
    api = client(stand(studios[path], proxy, front, path))
    drawn = api.post("/generate", json={"prompt": "x", **QUICK}).raise_for_status().json()
    assert drawn["images"][0].startswith(f"{path}/outputs/")
    picture = api.get(drawn["images"][0].removeprefix(path)).raise_for_status()
    assert picture.content.startswith(b"\x89PNG")
    url = api.post("/v1/images/generations", json={"prompt": "x", "response_format": "url"}).raise_for_status().json()
    if front != "no port":  # of which nobody says it then
        assert httpx.get(url["data"][0]["url"], verify=False).content.startswith(b"\x89PNG")

    begun = [api.post("/generate", json=LONG, headers={"Prefer": "respond-async"}) for _ in range(4)]
    jobs = [f"/jobs/{each.json()['id']}" for each in begun]
    assert [(each.status_code, each.headers["location"]) for each in begun] == [(202, path + job) for job in jobs]
    with api.stream("GET", f"{jobs[0]}/events", headers={"Accept-Encoding": "gzip, br"}) as stream:
        assert "content-encoding" not in stream.headers and "content-length" not in stream.headers
        events = (line.removeprefix("event: ") for line in stream.iter_lines() if line.startswith("event: "))
        while next(events) != "preview":
            pass
        assert api.get(jobs[0]).json()["state"] == "running", "the first preview is here while the job goes on"
    with api.stream("GET", f"{jobs[-1]}/events") as stream:
        assert next(stream.iter_raw()) == b": waiting\n\n"
        assert api.get(jobs[-1]).json()["state"] == "queued", "a few bytes are here while nothing follows them"
    for job in jobs:
        api.delete(job)
    taken = api.post("/enhance", files={"image": ("photo.jpg", noise(25))}, headers={"Prefer": "respond-async"})
    assert taken.status_code == 202, "what the studio takes, its proxy takes"
    api.delete(f"/jobs/{taken.json()['id']}")


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_may_cut_the_path_off(
    trusting: Any, studios: dict[str, str], stand: Stand, client: Any, proxy: Proxy
) -> None:
    house = stand(studios["/studio"], proxy, "port", "/studio", cut=True)
    api, asked = client(house), list[str]()
    drawn = api.post("/generate", json={"prompt": "x", **QUICK}).raise_for_status().json()
    assert api.get(drawn["images"][0].removeprefix("/studio")).content.startswith(b"\x89PNG")
    visit = Visit(trusting, f"{house}/")
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.open()
    visit.generate("a girl with glasses")
    visit.until("done")
    visit.page.wait_for_function("document.querySelector('#stage .frame img').naturalWidth > 0")
    cookies = visit.context.cookies()
    assert {(cookie["path"], cookie["secure"]) for cookie in cookies} == {("/studio/", False)}
    assert outside(asked, house) == [] and visit.complaints == []
    visit.close()


@pytest.fixture(scope="module")
def closed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("closed")


@pytest.fixture(scope="module")
def closed(closed_home: Path) -> Iterator[str]:
    """A studio with a password, whose pictures nginx delivers."""
    settings = {"STUDIO_PASSWORD": PASSWORD, "STUDIO_PROXY": "127.0.0.1", "STUDIO_ACCEL": "/_pictures"}
    with served(closed_home, STUDIO_PATH="/studio", STUDIO_BACKEND="edge", **settings) as url:
        yield url


def test_one_logs_in_and_stays_so(trusting: Any, closed: str, stand: Stand) -> None:
    """Over https, and the cookies are for nobody else on this host."""
    house = stand(closed, "nginx", "https", "/studio")
    visit = Visit(trusting, f"{house}/", first="input[name=password]")
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.page.fill("input[name=password]", PASSWORD)
    visit.page.click("button")
    visit.page.wait_for_selector("#stage .frame")
    assert visit.page.url == f"{house}/"
    cookies = visit.context.cookies()
    assert {(cookie["path"], cookie["secure"], cookie["sameSite"]) for cookie in cookies} == {
        ("/studio/", True, "Strict")
    }
    visit.page.goto(f"{house}/invite")
    link = visit.page.inner_text("code")
    assert re.fullmatch(rf"https://[^/]+:{urlsplit(house).port}/studio/join/\S+", link)
    visit.page.click("a.button >> nth=0")
    visit.page.wait_for_selector("#stage .frame")
    assert outside(asked, house) == []

    guest = Visit(trusting, f"{house}/", start=urlsplit(link).path.removeprefix("/studio/"), first="h1")
    guest.page.wait_for_selector("#stage .frame")  # it leads on by itself
    assert guest.page.url == f"{house}/"
    guest.close()
    visit.page.goto(f"{house}/invite")
    visit.page.click("button.quiet")
    visit.page.wait_for_selector("input[name=password]")
    visit.close()


def test_nginx_delivers_pictures_and_the_studio_says_to_whom(
    closed: str, closed_home: Path, stand: Stand, client: Any, tmp_path: Path
) -> None:
    house = stand(closed, "nginx", "port", "/studio", outputs=closed_home / "outputs")
    owner, stranger = client(house), client(house)
    assert owner.post("/login", data={"password": PASSWORD}).status_code == 303
    address = owner.post("/generate", json={"prompt": "x", **QUICK}).json()["images"][0].removeprefix("/studio")
    (stored,) = (closed_home / "outputs").glob("outputs_*.png")
    by_nginx = owner.get(address)
    assert by_nginx.content == stored.read_bytes() and by_nginx.headers["accept-ranges"] == "bytes"
    assert owner.get(address, headers={"Range": "bytes=1-3"}).content == b"PNG"
    assert owner.get(address, headers={"If-None-Match": by_nginx.headers["etag"]}).status_code == 304
    assert "x-accel-redirect" not in by_nginx.headers
    photo = {"image": ("奶奶 %41.png", encoded(people(), "PNG"))}
    restored = owner.post("/enhance", files=photo).json()["output_path"].removeprefix("/studio")
    (file,) = (closed_home / "outputs").glob("outputs_*-*")
    assert "奶奶" in file.name and owner.get(restored).content == file.read_bytes(), "whatever it is called"

    assert stranger.get(address).status_code == 401
    key, name = address.removeprefix("/outputs/").split("/")
    assert owner.get(f"/outputs/{'0' * 32}/{name}").status_code == 404, "another's"
    assert owner.get(f"/outputs/{key}/outputs_20200101000000.png").status_code == 404
    root = client(house.removesuffix("/studio"))
    assert [root.get(f"/_pictures/{each}").status_code for each in (name, "../state/secret", "")] == [404, 404, 404]
    stored.unlink()
    assert owner.get(address).status_code == 404


def test_what_nginx_delivers_is_dressed_as_the_studio_dresses_it(
    closed: str, closed_home: Path, studios: dict[str, str], stand: Stand, client: Any
) -> None:
    house = stand(closed, "nginx", "port", "/studio", outputs=closed_home / "outputs")
    owner, plain = client(house), client(studios["/studio"] + "/studio")
    assert owner.post("/login", data={"password": PASSWORD}).status_code == 303
    answers = []
    for api in (owner, plain):
        address = api.post("/generate", json={"prompt": "x", **QUICK}).json()["images"][0]
        answers.append(dict(api.get(address.removeprefix("/studio")).headers))
    ours = set(answers[1]) - {"date", "etag", "last-modified", "content-length", "vary"}
    assert {name: answers[0].get(name) for name in ours} == {name: answers[1][name] for name in ours}


def test_nginx_keeps_the_page_s_own_files(studios: dict[str, str], stand: Stand, client: Any, tmp_path: Path) -> None:
    api = client(stand(studios["/studio"], "nginx", "port", "/studio"))
    script = re.search(r'src="\./(assets/index-[\w-]+\.js)"', api.get("/").text)
    assert script
    first, second = (api.get(f"/{script[1]}", headers={"Accept-Encoding": each}) for each in ("br", "gzip"))
    assert first.content == second.content and first.headers["content-encoding"] == "br"
    assert second.headers["content-encoding"] == "gzip"
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 2
    assert json.loads(api.get("/me").text)["role"] == "guest", "who comes through a proxy does not sit at this machine"
