"""A form that is sent twice does once what it says: a key that was made with it goes along."""

import hashlib
import secrets
from collections.abc import Mapping

CONTROL = "once"
"""The hidden control that holds the key."""

_KEY_BYTES = 16


def new_key() -> str:
    """Return the key of a form that is about to be shown."""
    return secrets.token_urlsafe(_KEY_BYTES)


def key_of(form: Mapping[str, str], said: str) -> str | None:
    """Return the idempotency key for what a form *said*; None if it was sent without one.

    Whoever goes back, changes the form and sends it again means something else.
    """
    key = form.get(CONTROL)
    return hashlib.sha256(f"{key} {said}".encode()).hexdigest() if key else None
