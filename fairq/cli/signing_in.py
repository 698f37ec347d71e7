"""``fairq login`` and ``fairq logout``."""

import socket
import sys
from collections.abc import Iterable
from typing import Annotated

import httpx
import typer

from fairq import calls, http, sign_in
from fairq.cli import ending, options, terminal
from fairq.cli.ending import Exit
from fairq.client import Client
from fairq.errors import Refused
from fairq.sign_in import SignIn

_USUAL_ADDRESS = "http://127.0.0.1:8080"
_USUAL_SCOPES = ["read", "submit"]
_PATIENCE_SECONDS = 10.0


def login(
    *,
    address: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="Of the server.")] = None,
    username: Annotated[str | None, typer.Option(help="Who signs in.")] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="Use this one instead; - asks for it.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What the new token is for: read, submit, work, admin. May be repeated."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Sign in: ask for address, username and password, and keep a token for this account.

    FAIRQ_URL and FAIRQ_TOKEN win over what is kept.
    """
    with ending.as_usage():
        url = sign_in.checked(address or typer.prompt("Address", default=_USUAL_ADDRESS, err=True))
    if token is None:
        username = username or typer.prompt("Username", err=True)
        secret = _new_token(url, username, _asked("Password"), scope or _USUAL_SCOPES)
    else:
        secret = _asked("Token") if token == "-" else token  # noqa: S105 - a dash is no secret
    with Client(url, secret, patience_seconds=_PATIENCE_SECONDS) as client:
        account = client.me()
    kept = SignIn(url, secret).store()
    if as_json:
        terminal.print_json({"url": url, "username": account.username, "kept_in": str(kept)})
    else:
        terminal.say(f"signed in at {url} as {account.username}, kept in {kept}")


def logout(*, as_json: options.AsJson = False) -> None:
    """Forget the kept token."""
    is_forgotten = sign_in.forget()
    if as_json:
        terminal.print_json({"signed_out": is_forgotten})
    elif is_forgotten:
        terminal.say("signed out here; the token itself can be revoked on the account page")
    else:
        terminal.say("nobody was signed in")


def _asked(what: str) -> str:
    """Ask for a secret, or read it where it is piped in."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, err=True))
    return sys.stdin.readline().rstrip("\n")


def _new_token(url: str, username: str, password: str, scopes: Iterable[str]) -> str:
    call = calls.make_token(f"fairq on {socket.gethostname()}", scopes)
    with httpx.Client(base_url=url) as client:
        try:
            answer = client.request(**http.request(call), auth=(username, password))
        except httpx.TransportError as error:
            raise http.no_answer(error, client.base_url) from error
    try:
        return http.answered(call, answer)
    except Refused as error:
        if error.status != httpx.codes.UNAUTHORIZED:
            raise
        terminal.say(f"fairq: {error.detail}")
        raise typer.Exit(Exit.REFUSED) from error
