"""Where the server is and who asks: the environment first, then what ``fairq login`` stored."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from platformdirs import user_config_path
from pydantic import BaseModel

from fairq.errors import AddressInvalid, NotSignedIn

URL_VARIABLE, TOKEN_VARIABLE = "FAIRQ_URL", "FAIRQ_TOKEN"


@dataclass(frozen=True, slots=True)
class SignIn:
    """The address of a server, and a token for it."""

    url: str
    token: str = field(repr=False)

    @classmethod
    def found(
        cls,
        url: str | None = None,
        token: str | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """Complete what is given from the environment and the stored login.

        A stored token goes to the address it was made at and to no other, and one of the
        environment to the address that stands beside it, if one does. Raises NotSignedIn when
        either is missing, AddressInvalid for what is no address of a server.
        """
        usual = environment.get(URL_VARIABLE)
        named = url or usual
        url = checked(named) if named else None
        if not usual or usual.rstrip("/") == url:
            token = token or environment.get(TOKEN_VARIABLE)
        stored = _stored()
        if stored and url in {None, stored.url}:
            url, token = stored.url, token or stored.token
        if not (url and token):
            raise NotSignedIn
        return cls(url, token)

    def store(self) -> Path:
        """Keep it for later, readable by its owner alone, and return where."""
        path = _path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        kept = _Stored(url=self.url.rstrip("/"), token=self.token)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(kept.model_dump_json())
        return draft.replace(path)


def forget() -> bool:
    """Forget the stored login; tell whether there was one."""
    if not _path().exists():
        return False
    _path().unlink()
    return True


class _Stored(BaseModel):
    url: str
    token: str


def checked(url: str) -> str:
    """Return the address of a server, always written alike. Raises AddressInvalid."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise AddressInvalid(url)
    return url.rstrip("/")


def _path() -> Path:
    return user_config_path("fairq") / "login.json"


def _stored() -> _Stored | None:
    try:
        return _Stored.model_validate_json(_path().read_text())
    except (FileNotFoundError, ValueError):
        return None
