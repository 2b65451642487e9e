"""
What a browser carries: a pass, in a cookie that scripts cannot read and other sites cannot use. Its holder is whoever
the pass names, and may do what the password of the house, or an invitation, has given.
"""

from __future__ import annotations

import hmac
import time
import uuid
from dataclasses import asdict, dataclass

from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer
from starlette.responses import Response

from engines import files
from webui.people import Role
from webui.people.secret import derive

COOKIE = "studio"
VISIT_S = 86400  # for how long a visit to a frame counts at most
COOKIE_S = 400 * 86400  # the longest that browsers keep one (RFC 6265bis, section 5.5)


@dataclass(frozen=True, slots=True)
class Pass:
    """
    `id`: of the person. `role`: what was given, None while nothing was; until when, in seconds since 1970, 0 for ever;
    and `password_key`: by which password of the house, as a new one ends what the old one gave.
    """

    id: str
    role: Role | None = None
    until: int = 0
    password_key: str = ""

    def gives(self, password_key: str) -> Role | None:
        """Return the role that the pass gives now, where the password has this key; none: empty."""
        lasts = not self.until or time.time() < self.until
        return self.role if lasts and self.password_key == password_key else None


def stranger() -> Pass:
    """Return a pass for somebody new."""
    return Pass(uuid.uuid4().hex)


class Passes:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._cookies = URLSafeSerializer(secret, salt="pass")
        self._visits = URLSafeTimedSerializer(secret, salt="visit")

    def read(self, cookie: str) -> Pass | None:
        """Return the pass that a cookie holds; None: it is none of ours."""
        try:
            return files.validate(Pass, self._cookies.loads(cookie))
        except (BadSignature, ValueError):  # somebody else's, or of another version
            return None

    def invitation(self, hours: float, password_key: str) -> str:
        """Return the text of a link by which anybody becomes a guest for so long: when it ends, and its key."""
        until = f"{int(time.time() + 3600 * hours):x}"
        return f"{until}-{self._key(until, password_key)}"

    def invited(self, text: str, password_key: str) -> Pass | None:
        """Return what an invitation to this house gives, which may be over; None: it is none of ours."""
        until, _, key = text.partition("-")
        if not hmac.compare_digest(key.encode(), self._key(until, password_key).encode()):
            return None
        return Pass("", "guest", int(until, 16), password_key)

    def visit(self, password_key: str) -> str:
        """Return what a frame's page carries for somebody new who stands before it, and nobody else has."""
        return str(self._visits.dumps([stranger().id, password_key]))

    def visitor(self, text: str, password_key: str) -> str | None:
        """Return whose visit this is; None: none of ours, or it is over."""
        try:
            visitor, key = self._visits.loads(text, max_age=VISIT_S)
        except (BadSignature, ValueError, TypeError):
            return None
        return str(visitor) if key == password_key else None

    def _key(self, until: str, password_key: str) -> str:
        return derive(self._secret, "invitation", f"{until} {password_key}")

    def hand_out(self, response: Response, given: Pass, secure: bool) -> None:
        """Put the pass into the answer's cookie. `secure`: the connection is encrypted, and it shall stay so."""
        response.set_cookie(
            COOKIE,
            str(self._cookies.dumps(asdict(given))),
            max_age=COOKIE_S,
            httponly=True,
            samesite="strict",
            secure=secure,
        )
