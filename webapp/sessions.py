"""The session of a browser: that it begins from nothing, lasts while it is used, and ends for good.

It is all in a signed cookie. The server keeps only which sessions were ended, in Redis until their
cookies are no longer good by themselves; a broker that is away keeps nobody out.
"""

import secrets
from contextlib import suppress

from flask import current_app, session
from redis import RedisError

from scheduler import clock
from webapp.services import services

_NUMBER = "number"
_RENEWED_ON = "renewed_on"
_KEY = "fairq:ended:"


def begin() -> None:
    """Begin a session. Nothing of an earlier one is kept, least of all its CSRF token."""
    session.clear()
    session.permanent = True
    session[_NUMBER] = secrets.token_urlsafe(16)


def renew() -> None:
    """Let the session last on from today.

    The cookie is not set at every request: one in flight would undo signing out in another tab.
    """
    today = clock.now().date().isoformat()
    if session.get(_RENEWED_ON) != today:
        session[_RENEWED_ON] = today


def end() -> None:
    """End the session, also for whoever has a copy of its cookie."""
    number, lifetime = session.get(_NUMBER), current_app.permanent_session_lifetime
    if number is not None:
        with suppress(RedisError):
            services().redis.set(_KEY + number, "", ex=lifetime)
    session.clear()


def has_ended() -> bool:
    """Tell whether the session of this request was ended before."""
    number = session.get(_NUMBER)
    with suppress(RedisError):
        return number is not None and bool(services().redis.exists(_KEY + number))
    return False
