"""Keeping passwords. The arithmetic runs beside the event loop, which it would hold up."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from gevent import get_hub

_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)

_NOBODYS = (
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXRoaW5nIHNhbHR5$"
    "n0sTTGZ4ViYV1V9hLBqfpOnYEQCkAWKEq5TyS9K2x0c"
)
"""Checked for names that do not exist, so that they take as long as those that do."""


def hash_password(password: str) -> str:
    """Return what is stored instead of *password*."""
    hashed: str = get_hub().threadpool.apply(_HASHER.hash, (password,))
    return hashed


def verify_password(password_hash: str | None, password: str) -> bool:
    """Tell whether *password* is the one behind the hash; None takes as long and is refused."""
    verified: bool = get_hub().threadpool.apply(_verify, (password_hash or _NOBODYS, password))
    return verified and password_hash is not None


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
