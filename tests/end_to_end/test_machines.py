"""A studio and a machine that works for it, each with its own processes and home, as two computers would have them."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from engines.bundle import BUILT_IN
from tests.support.false_studio import false_studio
from tests.support.machines import Machine
from tests.support.redis_server import MISSING, PROGRAM, running_redis
from tests.support.server import Process
from webui import mdns
from webui.people import WORKER
from webui.people.tokens import Tokens

pytestmark = pytest.mark.slow
TAKEN_OVER_S = 15.0
LONG: dict[str, Any] = {"prompt": "a woman", "steps": 20, "count": 4, "seed": 7}  # seconds, on any machine


def until(condition: Callable[[], object], seconds: float = 90, why: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@dataclass
class House:
    token: str
    home: Path
    server: Process
    machine: Machine

    def rows(self, what: str) -> list[Any]:
        with closing(sqlite3.connect(self.home / "state" / "jobs.db")) as db:
            return db.execute(f"SELECT {what} FROM job ORDER BY number").fetchall()

    def submit(self, **values: Any) -> str:
        headers = {"Prefer": "respond-async"}
        answer = httpx.post(f"{self.server.url}/generate", json=values, headers=headers, timeout=60)
        return str(answer.raise_for_status().json()["id"])

    def ready(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.server.url}/readyz", timeout=60).json())

    def job(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = httpx.get(f"{self.server.url}/jobs/{job_id}", timeout=60).raise_for_status().json()
        return body

    def row(self, job_id: str) -> tuple[str, str, int, int]:
        """Its state, whose it is, how often it was begun, and how often it was not to blame for the end of that."""
        return next(tuple(rest) for found, *rest in self.rows("id, state, worker, attempts, stops") if found == job_id)  # type: ignore[return-value]

    def ended(self, *jobs: str) -> None:
        until(lambda: all(self.row(job)[0] not in ("queued", "running") for job in jobs), why=self.logs)

    def start_again(self) -> None:
        port = self.server.url.rpartition(":")[2]
        self.server = Process(self.home, STUDIO_PORT=port)
        self.server.url = f"http://127.0.0.1:{port}"
        self.server.until_ready()

    def logs(self) -> str:
        return self.server.log.read_text()[-3000:] + self.machine.log.read_text()[-3000:]

    def at_desk(self, **values: Any) -> str:
        """Submit a job that is begun there: of two of the same, one is."""
        jobs = [self.submit(**values) for _ in range(2)]
        until(lambda: all(self.row(job)[0] == "running" for job in jobs), why=self.logs)
        return next(job for job in jobs if self.row(job)[1] == "desk")

    def pixels(self, job_id: str) -> list[Any]:
        images = self.job(job_id)["result"]["images"]
        return [np.asarray(Image.open(io.BytesIO(httpx.get(self.server.url + url).content))) for url in images]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with a_house(tmp_path) as house:
        yield house


@contextmanager
def a_house(tmp_path: Path, **env: str) -> Iterator[House]:
    """`env`: what is set at the studio and at the desk."""
    (home := tmp_path / "studio").mkdir()
    server = Process(home, **env)
    server.until_ready()
    token = Tokens(home / "state" / "tokens.json").add(WORKER + "desk")
    big = tmp_path / "desk" / "models" / "big"
    shutil.copytree(BUILT_IN / "portrait", big)
    manifest = json.loads((big / "bundle.json").read_text())
    (big / "bundle.json").write_text(json.dumps({**manifest, "name": "big"}))
    house = House(token, home, server, Machine(tmp_path / "desk", server.url, token, **env))
    try:
        until(lambda: house.ready().get("workers") == {"desk": "ready"}, why=house.logs)
        # The first job of each, so that it is known what one takes there.
        house.ended(*[house.submit(prompt="p") for _ in range(4)])
        yield house
    finally:
        house.machine.popen.send_signal(signal.SIGTERM)
        house.machine.popen.wait(60)
        house.server.stop()


def test_two_machines_draw_the_same_and_one_may_vanish(house: House) -> None:
    """Killed in the middle of a job: home goes on where it was, and every picture is as if nothing had happened."""
    assert {worker for _, worker in house.rows("state, worker")} == {"", "desk"}
    job_id = house.at_desk(**LONG)
    until(lambda: len(_results(house, job_id)) >= 1, why=house.logs)  # the first of its four pictures
    first = _results(house, job_id)[0]
    until(lambda: first in _counted(house, job_id), why=house.logs)
    house.machine.kill()
    killed = time.monotonic()
    until(lambda: house.row(job_id)[1] != "desk", why=house.logs)
    assert "workers" not in house.ready()
    assert time.monotonic() - killed < TAKEN_OVER_S
    house.ended(job_id)
    state, worker, attempts, stops = house.row(job_id)
    assert (state, worker, attempts, stops) == ("done", "", 2, 1)
    assert house.job(job_id)["result"]["images"][0].endswith(first), "the picture that was done is not drawn anew"
    alone = house.submit(**LONG)
    house.ended(alone)
    for drawn, wanted in zip(house.pixels(job_id), house.pixels(alone), strict=True):
        assert np.array_equal(drawn, wanted)


def test_the_studio_may_be_killed_and_a_machine_that_stops_gives_back_what_it_has(house: House) -> None:
    job_id = house.at_desk(**LONG)
    until(lambda: _results(house, job_id), why=house.logs)
    house.server.popen.kill()
    house.server.popen.wait(60)
    house.start_again()
    house.ended(job_id)
    assert house.row(job_id) == ("done", "desk", 1, 0), "its only attempt, at the desk"
    assert len(house.job(job_id)["result"]["images"]) == 4
    stopped = house.at_desk(**LONG)
    house.machine.popen.send_signal(signal.SIGTERM)
    until(lambda: house.row(stopped)[1] != "desk", seconds=10, why=house.logs)
    assert house.machine.popen.wait(30) == 0
    waits, other = house.submit(prompt="p", bundle="big"), house.submit(prompt="p")
    house.ended(stopped, other)
    assert house.row(waits)[:2] == ("queued", "?"), "only the desk, which is off, has that model"
    house.machine = Machine(house.machine.home, house.server.url, house.token)
    house.ended(waits)
    assert house.row(waits)[:2] == ("done", "desk")
    house.ended(*[job for (job,) in house.rows("id")])
    assert {state for (state,) in house.rows("state")} == {"done"}
    both = house.at_desk(**LONG)
    house.machine.kill()
    house.server.popen.kill()
    house.server.popen.wait(60)
    house.start_again()
    house.ended(both)
    assert house.row(both) == ("done", "", 2, 1), "a machine that does not come back loses it"


@pytest.mark.skipif(PROGRAM is None, reason=MISSING)
def test_called_over_redis_machines_come_and_while_it_is_away_home_goes_on(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as redis, a_house(tmp_path, STUDIO_QUEUE=redis.url) as house:
        assert {worker for _, worker in house.rows("state, worker")} == {"", "desk"}
        job_id = house.at_desk(**LONG)
        redis.kill()
        until(lambda: house.ready().get("hurdle") == "Redis does not answer", why=house.logs)
        assert httpx.get(f"{house.server.url}/readyz").status_code == 200
        other, waits = house.submit(prompt="p"), house.submit(prompt="p", bundle="big")
        house.ended(job_id, other)
        assert house.row(job_id) == ("done", "desk", 1, 0), "what it has begun it does to the end"
        assert house.row(other)[:2] == ("done", "") and house.row(waits)[:2] == ("queued", "?")
        redis.start()
        house.ended(waits)
        assert house.row(waits)[:2] == ("done", "desk") and "hurdle" not in house.ready()
        killed = house.at_desk(**LONG)
        house.machine.kill()
        house.machine = Machine(house.machine.home, house.server.url, house.token, STUDIO_QUEUE=redis.url)
        house.ended(*[job for (job,) in house.rows("id")])
        assert {state for (state,) in house.rows("state")} == {"done"}
        assert house.row(killed)[2:] == (2, 1), "begun twice, and once it was not to blame"


@pytest.mark.skipif(not mdns.addresses_at("0.0.0.0"), reason="this machine is in no network")
def test_a_machine_finds_its_studio_and_sends_its_token_to_no_other(tmp_path: Path) -> None:
    address = mdns.addresses_at("0.0.0.0")[0]
    (home := tmp_path / "studio").mkdir()
    token = Tokens(home / "state" / "tokens.json").add(WORKER + "desk")
    with false_studio(host=str(address)) as (url, sent), Zeroconf(ip_version=IPVersion.V4Only) as network:
        port = int(url.rpartition(":")[2])
        network.register_service(ServiceInfo(mdns.TYPE, f"a.{mdns.TYPE}", port, addresses=[address.packed]))
        machine = Machine(tmp_path / "desk", "", token)
        try:
            until(lambda: sent, why=machine.log.read_text)
            until(lambda: "STUDIO_MDNS=on" in machine.log.read_text())
            server = Process(home, STUDIO_MDNS="on")
            server.until_ready()
            house = House(token, home, server, machine)
            until(lambda: house.ready().get("workers") == {"desk": "ready"}, why=house.logs)
            assert f"{address}:{server.url.rpartition(':')[2]}" in machine.log.read_text()
            job_id = house.at_desk(prompt="p", steps=20)
            house.ended(job_id)
            assert house.row(job_id)[:2] == ("done", "desk")
            server.stop()
        finally:
            machine.popen.send_signal(signal.SIGTERM)
            assert machine.popen.wait(60) == 0
    assert token not in "".join(sent) and "authorization" not in "".join(sent).lower()


def _events(house: House, job_id: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(house.home / "state" / "jobs.db")) as db:
        rows = db.execute("SELECT body FROM event WHERE job=? ORDER BY seq", (job_id,)).fetchall()
    return [json.loads(body) for (body,) in rows]


def _results(house: House, job_id: str) -> list[str]:
    return [event["image"] for event in _events(house, job_id) if event.get("shows") == "result"]


def _counted(house: House, job_id: str) -> str:
    with closing(sqlite3.connect(house.home / "state" / "jobs.db")) as db:
        return "".join(names for (names,) in db.execute("SELECT pictures FROM snapshot WHERE job=?", (job_id,)))
