"""
What every request passes after the guard: who asks is written into its state, for all that answer. With a password,
who is not let in is shown the door: a page to people, a 401 to programs. Plain ASGI.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from starlette.datastructures import Headers, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from engines.errors import LoginNeeded
from engines.settings import Settings
from webui import addresses, app_shell, trust
from webui.connections import is_this_machine
from webui.i18n import in_both, preferred, spoken
from webui.people import NOBODY, PROGRAM, VISITOR, WORKER, Person, Role, pages, proof, secret
from webui.people.passes import COOKIE, Pass, Passes
from webui.people.password import Attempts, Password
from webui.people.secret import Keys
from webui.people.tokens import Tokens

# Whoever stands before a frame has its links from the screen: their codes are the keys.
LINKS = ("/frame/send/", "/frame/take/")
OPEN_PATHS = (
    *app_shell.PATHS,
    *trust.PATHS,
    "/healthz",
    "/readyz",
    "/me",
    "/login",
    "/logout",
    "/join/",
    proof.PATH,
    *LINKS,
)
FETCHED = "/frame/image."
FOR_WORKERS = "/workers/"  # theirs alone, and all that is theirs
OPEN_BELOW = tuple(path for path in OPEN_PATHS if path.endswith("/"))


@dataclass(frozen=True)
class People:
    """What a house knows people by. `password`: None where the house is open."""

    passes: Passes
    tokens: Tokens
    keys: Keys
    password: Password | None
    attempts: Attempts

    @classmethod
    def of(cls, settings: Settings) -> People:
        """OSError: the secret of the house can neither be read nor stored."""
        own = secret.load(settings.state / "secret")
        password = Password(settings.password, own) if settings.password else None
        return cls(Passes(own), Tokens(settings.state / "tokens.json"), Keys(own), password, Attempts())

    def person(self, scope: Scope) -> Person | None:
        """Return who asks; None: that is nobody who is let in."""
        headers = Headers(scope=scope)
        token = _token(headers.get("authorization", "")) or _token_in_address(scope)
        if token and (program := self.tokens.name_of(token)):
            return Person(program if program.startswith(WORKER) else PROGRAM + program)
        if token and (visitor := self.passes.visitor(token, self.password_key)):
            return Person(VISITOR + visitor)
        card = self.pass_of(scope)
        role = self._role(card, scope)
        return role and Person(card.id if card else "", role)

    @property
    def password_key(self) -> str:
        return self.password.key if self.password else ""

    def begin_visit(self) -> str:
        """Return the token of somebody new at a frame, which may do what a guest may, for a day at most."""
        return self.passes.visit(self.password_key)

    def _role(self, card: Pass | None, scope: Scope) -> Role | None:
        """In an open house the owner is who sits at the machine; in a closed one, who has the password."""
        if self.password is None:
            return "owner" if is_this_machine(scope) else "guest"
        return card.gives(self.password.key) if card else None

    def pass_of(self, scope: Scope) -> Pass | None:
        """Return the pass that a browser has sent; None: none of ours."""
        cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
        return self.passes.read(cookies[COOKIE]) if COOKIE in cookies else None


class Admission:
    def __init__(self, app: ASGIApp, people: People) -> None:
        self.app, self.people = app, people

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        person = self.people.person(scope)
        path = addresses.inside(scope)
        if path.startswith(FOR_WORKERS) != (person is not None and person.is_worker):
            person = None
        if person is None and not _is_open(path):
            return await _refusal(scope)(scope, receive, send)
        state = {**scope.get("state", {}), "person": person or NOBODY}
        return await self.app({**scope, "state": state}, receive, send)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_BELOW)


def _refusal(scope: Scope) -> Response:
    headers = Headers(scope=scope)
    say = spoken(preferred(headers))
    if "text/html" in headers.get("accept", ""):
        asked = f"{addresses.inside(scope)}?{scope.get('query_string', b'').decode('latin-1')}".rstrip("?")
        return HTMLResponse(pages.login(say, addresses.root(scope), to=asked), 401, {"Cache-Control": "no-store"})
    refusal = {"status": "error", "code": LoginNeeded.code, "message": in_both(LoginNeeded.code, {})}
    body = json.dumps(refusal, ensure_ascii=False)
    return Response(body, 401, {"WWW-Authenticate": "Bearer"}, "application/json")


def _token_in_address(scope: Scope) -> str:
    """Return the token of a frame that can fetch an address and nothing else."""
    if not addresses.inside(scope).startswith(FETCHED):
        return ""
    return QueryParams(scope.get("query_string", b"")).get("token", "")


def _token(authorization: str) -> str:
    """Return the token that a program sends: as such, or as a password, which is what A1111's clients can send."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
