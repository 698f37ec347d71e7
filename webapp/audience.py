"""Who listens to this web process, and whether they still may."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from flask import request
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from scheduler.models import Token, User
from webapp import access
from webapp.access import Account

ALL = "all"
FLEET = "fleet"

FOLLOWED_LIMIT = 20
"""How many logs one connection may follow."""

Named = tuple[str, str | None]
"""A job as a client names it: its id, and its owner where they say that."""

Key = TypeVar("Key", int, str)


@dataclass(frozen=True, slots=True)
class Client:
    """One connection and what proved who it is: the session's version, or a token."""

    account: Account
    secret_hash: bytes | None = None


def client_of_request() -> Client | None:
    """Return who makes this request and with what proof, or None.

    Raises a 401 problem for a header that proves nothing.
    """
    account, credentials = access.caller(), request.authorization
    if account is None:
        return None
    secret = None if account.by_session or credentials is None else credentials.token
    return Client(account, None if secret is None else access.hash_secret(secret))


def client_by_token(secret: str, now: datetime) -> Client:
    """Return whose token *secret* is. Raises a 401 problem for one that is not good."""
    return Client(access.by_token(secret, now), access.hash_secret(secret))


def user_room(account_id: int) -> str:
    """Return where events of a user's jobs go."""
    return f"user:{account_id}"


def log_room(owner_id: int, job_id: str) -> str:
    """Return where the lines of one job go."""
    return f"log:{owner_id}:{job_id}"


class Audience:
    """The connections of this process. Rooms are joined by the server alone."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._accounts: Counter[int] = Counter()
        self._followed: dict[str, dict[Named, str]] = {}
        self._rooms: Counter[str] = Counter()
        self._watching: dict[str, set[str]] = {ALL: set(), FLEET: set()}

    def arrive(self, sid: str, client: Client) -> None:
        """Note a new connection."""
        self._clients[sid] = client
        self._accounts[client.account.id] += 1

    def leave(self, sid: str) -> None:
        """Forget a connection. Harmless for one that never arrived."""
        client = self._clients.pop(sid, None)
        if client is None:
            return
        _take_one(self._accounts, client.account.id)
        for room in self._followed.pop(sid, {}).values():
            _take_one(self._rooms, room)
        for watchers in self._watching.values():
            watchers.discard(sid)

    def watch(self, sid: str, what: str) -> None:
        """Note that a connection asks for everybody's jobs, or for the fleet."""
        if sid in self._clients:
            self._watching[what].add(sid)

    def is_watched(self, what: str) -> bool:
        """Tell whether anybody asks for everybody's jobs, or for the fleet."""
        return bool(self._watching[what])

    def client(self, sid: str) -> Client | None:
        """Return who is behind a connection."""
        return self._clients.get(sid)

    def hears_of(self, owner_id: int) -> bool:
        """Tell whether anybody here is to know of an owner's jobs."""
        return self.is_watched(ALL) or owner_id in self._accounts

    def account_ids(self) -> set[int]:
        """Return whose connections there are."""
        return set(self._accounts)

    def follow(self, sid: str, job: Named, room: str) -> bool:
        """Note that a connection follows the log of a job; False if it follows enough."""
        followed = self._followed.setdefault(sid, {})
        if job not in followed:
            if len(followed) >= FOLLOWED_LIMIT:
                return False
            followed[job] = room
            self._rooms[room] += 1
        return True

    def unfollow(self, sid: str, job: Named) -> str | None:
        """Return the room of a log that a connection follows no more, if it did."""
        room = self._followed.get(sid, {}).pop(job, None)
        if room is not None:
            _take_one(self._rooms, room)
        return room

    def is_followed(self, room: str) -> bool:
        """Tell whether anybody here follows the log of a job."""
        return room in self._rooms

    def no_longer_welcome(self, session: Session, now: datetime) -> list[str]:
        """Return connections whose account, role, password or token has changed or ended."""
        good = {
            (user, role, version)
            for user, role, version in session.execute(
                select(User.id, User.role, User.session_version).where(
                    User.id.in_(self.account_ids()), User.active
                )
            )
        }
        roles = {(user, role) for user, role, _ in good}
        tokens = _good_tokens(session, self._hashes(), now)
        return [sid for sid, one in self._clients.items() if not _is_good(one, good, roles, tokens)]

    def _hashes(self) -> set[bytes]:
        return {one.secret_hash for one in self._clients.values() if one.secret_hash is not None}


def _take_one(counter: Counter[Key], key: Key) -> None:
    """Count one less, and nothing at all where none is left."""
    counter[key] -= 1
    if counter[key] == 0:
        del counter[key]


def _good_tokens(session: Session, hashes: Collection[bytes], now: datetime) -> set[bytes]:
    if not hashes:
        return set()
    lasting = or_(Token.expires_at.is_(None), Token.expires_at > now)
    return set(
        session.scalars(select(Token.secret_hash).where(Token.secret_hash.in_(hashes), lasting))
    )


def _is_good(
    one: Client,
    accounts: set[tuple[int, str, int]],
    roles: set[tuple[int, str]],
    tokens: set[bytes],
) -> bool:
    account = one.account
    if one.secret_hash is None:
        return (account.id, account.role, account.session_version) in accounts
    return (account.id, account.role) in roles and one.secret_hash in tokens
