"""The addresses at the door: who am I, the password, invitations, and leaving."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from engines.errors import OwnerOnly
from webui import addresses, i18n
from webui.connections import base_url
from webui.i18n import preferred, spoken
from webui.people import pages, person_of, proof
from webui.people.admission import People
from webui.people.passes import COOKIE, Pass, stranger

INVITED_HOURS = 24
FIELD_BYTES = 1000
FRAME = re.compile(
    r"/frame(\?[\w=&:%,.+~-]{0,500})?", re.ASCII
)  # where a login leads, if that was asked for; else home
NO_STORE = {"Cache-Control": "no-store"}
LANGUAGE_S = 365 * 86400  # how long a browser remembers it, from the last choice
PATHS = ("/me", "/login", "/logout", "/leave", "/language/", "/join/", "/invite", proof.PATH)  # what Guard lets through


def router(people: People) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    _add_passes(routes, people)
    _add_login(routes, people)
    _add_invitations(routes, people)
    _add_proof(routes, people)
    return routes


def _add_passes(routes: APIRouter, people: People) -> None:
    @routes.get("/me")
    def me(request: Request) -> Response:
        """
        Say to a page who it is for, and see to it that its browser has a pass: every page asks this first. The page
        itself must hand out none: a link from elsewhere comes without the cookie (SameSite=Strict), and whoever follows
        it would be somebody new.
        """
        person = people.person(request.scope)
        answer = JSONResponse({"role": person and person.role}, headers=NO_STORE)
        if person is None:
            return answer
        return _with_pass(answer, people.pass_of(request.scope) or stranger(), people, request)

    @routes.post("/leave")
    def leave(request: Request) -> Response:
        """Be somebody new, with the same rights: for a screen that several people use."""
        old, answer = people.pass_of(request.scope) or stranger(), Response(status_code=204)
        answer.delete_cookie(i18n.COOKIE, samesite="strict")
        return _with_pass(answer, replace(old, id=stranger().id), people, request)

    @routes.post("/language/{tag}")
    def choose_language(tag: str, request: Request) -> Response:
        """Let the browser remember in which language it is spoken to. Scripts may read it: assets/language.js does."""
        if tag not in i18n.tags():
            raise HTTPException(404)
        answer, secure = Response(status_code=204), request.url.scheme == "https"
        answer.set_cookie(i18n.COOKIE, tag, LANGUAGE_S, samesite="strict", secure=secure)
        return answer

    @routes.post("/logout")
    def logout() -> Response:
        """Give the pass back."""
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _add_proof(routes: APIRouter, people: People) -> None:
    @routes.post(proof.PATH)
    def prove(request: Request, mark: str, nonce: str) -> Response:
        """Show a machine that this is the studio which its token is of, before it sends that."""
        checksum, server = people.tokens.checksum_of(mark), request.scope.get("server")
        if not checksum or not proof.NONCE.fullmatch(nonce) or not server:
            raise HTTPException(404)
        return JSONResponse({"proof": proof.make(checksum, nonce, server[0], server[1])}, headers=NO_STORE)


def _add_login(routes: APIRouter, people: People) -> None:
    @routes.post("/login")
    async def login(request: Request) -> Response:
        say, address = spoken(preferred(request.headers)), request.client.host if request.client else ""
        root = addresses.root(request.scope)
        if people.password is None:
            return RedirectResponse("/", 303)
        if wait_s := math.ceil(people.attempts.wait_s(address)):
            headers = {**NO_STORE, "Retry-After": str(wait_s)}
            return HTMLResponse(pages.login(say, root, say("door_later", seconds=wait_s)), 429, headers)
        async with request.form(max_files=0, max_fields=4, max_part_size=FIELD_BYTES) as form:
            password, asked = form.get("password"), str(form.get("to", ""))
        to = asked if FRAME.fullmatch(asked) else "/"
        if not await to_thread.run_sync(people.password.fits, str(password)):
            return HTMLResponse(pages.login(say, root, say("door_wrong"), to), 401, NO_STORE)
        people.attempts.forget(address)
        given = replace(
            people.pass_of(request.scope) or stranger(),
            role="owner",
            until=0,
            password_key=people.password.key,
        )
        return _with_pass(RedirectResponse(to, 303), given, people, request)


def _add_invitations(routes: APIRouter, people: People) -> None:
    @routes.get("/join/{invitation}")
    def join(invitation: str, request: Request) -> Response:
        """Become a guest, for as long as the invitation lasts. Who may do more already still may."""
        say, key = (
            spoken(preferred(request.headers)),
            people.password.key if people.password else "",
        )
        invited, old = people.passes.invited(invitation, key), people.pass_of(request.scope) or stranger()
        if invited is None or not invited.gives(key):
            return HTMLResponse(pages.ended(say), 403, NO_STORE)
        given = old if old.gives(key) == "owner" else replace(invited, id=old.id)
        return _with_pass(HTMLResponse(pages.welcome(say), headers=NO_STORE), given, people, request)

    @routes.get("/invite")
    def invite(request: Request) -> Response:
        """Show a link by which anybody becomes a guest."""
        if not person_of(request).is_owner:
            raise OwnerOnly("an invitation is the owner's to give")
        say, base = spoken(preferred(request.headers)), base_url(request)
        if people.password is None:
            return HTMLResponse(pages.invitation(say, base, None), headers=NO_STORE)
        link = base + "join/" + people.passes.invitation(INVITED_HOURS, people.password.key)
        return HTMLResponse(pages.invitation(say, link, INVITED_HOURS), headers=NO_STORE)


def _with_pass(answer: Response, given: Pass, people: People, request: Request) -> Response:
    people.passes.hand_out(answer, given, secure=request.url.scheme == "https")
    return answer
