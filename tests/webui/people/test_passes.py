"""What a browser carries, what a password is worth, what a program sends."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer
from starlette.responses import Response

from tests.conftest import REPOSITORY
from webui.people import secret
from webui.people.passes import COOKIE, Pass, Passes, stranger
from webui.people.password import FREE, PER_S, Attempts, Password
from webui.people.secret import KEY_LETTERS, Keys
from webui.people.tokens import Tokens

SECRET, OTHER = b"a" * 32, b"b" * 32


def cookie(passes: Passes, given: Pass, secure: bool = False) -> str:
    answer = Response()
    passes.hand_out(answer, given, secure)
    return answer.headers["set-cookie"]


def value(header: str) -> str:
    return header.partition("=")[2].partition(";")[0]


def test_a_pass_comes_back_as_it_was_given() -> None:
    given = Pass("me", "guest", 17, "house")
    assert Passes(SECRET).read(value(cookie(Passes(SECRET), given))) == given


def test_the_cookie_is_neither_for_scripts_nor_for_other_sites() -> None:
    header = cookie(Passes(SECRET), stranger()).lower()
    assert header.startswith(f"{COOKIE}=") and "httponly" in header and "samesite=strict" in header
    assert "path=/" in header and "max-age=34560000" in header
    assert "secure" not in header, "a house without a certificate has people too"
    assert "secure" in cookie(Passes(SECRET), stranger(), secure=True).lower()


@pytest.mark.parametrize("change", ["", "x", "{}", "e30.x", "a.b.c", "é", "\x00", "x" * 9000])
def test_what_is_no_pass_of_ours_is_none(change: str) -> None:
    assert Passes(SECRET).read(change) is None
    assert Passes(SECRET).invited(change, "") is None


def test_a_letter_that_was_changed_is_noticed() -> None:
    text = value(cookie(Passes(SECRET), Pass("me", "guest")))
    for k in range(0, len(text) - 1, 3):  # the last one carries bits that nobody reads
        assert Passes(SECRET).read(text[:k] + ("A" if text[k] != "A" else "B") + text[k + 1 :]) is None


def test_neither_another_house_nor_another_purpose_gives_a_pass() -> None:
    text = value(cookie(Passes(SECRET), Pass("me", "owner")))
    assert Passes(OTHER).read(text) is None
    assert Passes(SECRET).invited(text, "") is None
    invitation = Passes(SECRET).invitation(1, "")
    assert Passes(SECRET).invited(invitation, "") and len(invitation) < 50, "people read it aloud"
    assert Passes(SECRET).invited(invitation, "h") is Passes(OTHER).invited(invitation, "") is None
    assert Passes(SECRET).invited("f" + invitation, "") is Passes(SECRET).read(invitation) is None
    assert Passes(SECRET).read(str(URLSafeSerializer(SECRET, salt="pass").dumps({"id": 5, "role": "king"}))) is None


def test_a_role_ends_with_its_time_and_with_the_password_that_gave_it() -> None:
    now = int(time.time())
    assert Pass("me", "guest", now + 60, "h").gives("h") == "guest"
    assert Pass("me", "guest", now - 1, "h").gives("h") is None
    assert Pass("me", "owner", 0, "h").gives("h") == "owner"
    assert Pass("me", "owner", 0, "h").gives("another") is None
    assert stranger().gives("") is None


# ---- the secret, and the keys of pictures


def test_the_secret_is_drawn_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    first = secret.load(tmp_path / "state" / "secret")
    assert len(first) == 32 and secret.load(tmp_path / "state" / "secret") == first
    assert (tmp_path / "state" / "secret").stat().st_mode & 0o077 == 0
    assert secret.load(tmp_path / "other") != first


@pytest.mark.parametrize("left", [b"", b"half"])
def test_half_a_secret_is_none(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "secret").write_bytes(left)
    assert len(secret.load(tmp_path / "secret")) == 32


def test_a_key_belongs_to_one_name_in_one_house() -> None:
    keys, name = Keys(SECRET), "outputs_20260102030405-奶奶.png"
    signed = keys.sign(name)
    key = signed.partition("/")[0]
    assert len(key) == KEY_LETTERS and keys.name(signed) == name
    assert keys.name(f"{key}/outputs_20260102030406.png") is None
    assert Keys(OTHER).name(signed) is None
    assert "a" * 32 not in repr(keys)


@pytest.mark.parametrize("signed", ["", "/", "x", "x/y", "é/ü", "/outputs_1.png", "\ud800/x", "//", "k" * 32 + "/"])
def test_what_has_no_key_is_no_picture(signed: str) -> None:
    assert Keys(SECRET).name(signed) is None


# ---- the password


@pytest.fixture(scope="module")
def hashed() -> str:
    """As ./run.sh password makes it."""
    import argon2

    return argon2.PasswordHasher().hash("open sesame")


def test_a_password_fits_whether_it_is_given_as_such_or_as_its_hash(hashed: str) -> None:
    for setting in ("open sesame", hashed):
        password = Password(setting, SECRET)
        assert password.fits("open sesame")
        assert not any(password.fits(text) for text in ("", "open", "open sesame ", hashed, "Open sesame"))


def test_a_damaged_hash_lets_nobody_in() -> None:
    assert not Password("$argon2id$damaged", SECRET).fits("$argon2id$damaged")


def test_another_password_has_another_key(hashed: str) -> None:
    keys = {Password(setting, own).key for setting in ("one two", "two one", hashed) for own in (SECRET, OTHER)}
    assert len(keys) == 6 and Password("one two", SECRET).key in keys


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_guessing_is_soon_over_and_possible_again_later() -> None:
    attempts = Attempts(clock := Clock())
    assert [attempts.wait_s("a") for _ in range(FREE)] == [0.0] * FREE
    waits = attempts.wait_s("a")
    assert waits == pytest.approx(PER_S / FREE)
    assert attempts.wait_s("b") == 0.0, "another address"
    clock.now += waits + 0.01
    assert attempts.wait_s("a") == 0.0 and attempts.wait_s("a") > 0
    clock.now += 10 * PER_S
    assert [attempts.wait_s("a") for _ in range(FREE + 1)][-1] > 0, "never more than at first"
    attempts.forget("a")
    assert attempts.wait_s("a") == 0.0


def test_the_list_of_addresses_has_an_end() -> None:
    attempts = Attempts(Clock())
    for k in range(9000):
        attempts.wait_s(str(k))
    assert len(attempts._tries) <= 4096


# ---- tokens


def test_a_token_is_a_name_until_it_is_revoked(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    assert tokens.name_of("") is None and tokens.names() == []
    first, second = tokens.add("home-assistant"), tokens.add("webui")
    served = Tokens(tmp_path / "tokens.json")  # of the server, which runs meanwhile
    assert (served.name_of(first), served.name_of(second)) == ("home-assistant", "webui")
    assert served.name_of(first[:-1]) is None and served.name_of(first + "x") is None
    assert first not in (tmp_path / "tokens.json").read_text(), "only its checksum is stored"
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0
    assert tokens.revoke("home-assistant") and not tokens.revoke("home-assistant")
    assert (served.name_of(first), served.name_of(second)) == (None, "webui")
    anew = tokens.add("webui")
    assert (served.name_of(second), served.name_of(anew)) == (None, "webui"), "one of a name"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "null"])
def test_a_damaged_list_opens_nothing(tmp_path: Path, text: str) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    token = tokens.add("a")
    (tmp_path / "tokens.json").write_text(text)
    assert tokens.name_of(token) is None


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 41, "a\n"])
def test_a_token_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="only"):
        Tokens(tmp_path / "tokens.json").add(name)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"STUDIO_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
        line = [sys.executable, "-m", "webui.people.tokens", *arguments]
        return subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_command_makes_lists_and_ends_tokens(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "none" in command().stdout
    made = command("home-assistant")
    token = made.stdout.split()[0]
    assert token.startswith("awp_") and len(base64.urlsafe_b64decode(token[4:] + "=")) == 32
    assert command().stdout.split() == ["home-assistant"]
    assert command("home-assistant", "--revoke").returncode == 0
    again = command("home-assistant", "--revoke")
    assert again.returncode == 1 and "home-assistant" in again.stderr
    assert command("a b").returncode == 1
