"""Whether the process answers, and whether jobs can be taken in and go on."""

from typing import Literal

from webapp.schemas.groundwork import Answer


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]


class Check(Answer):
    """One part that readiness looks at."""

    ok: bool
    detail: str
    age_seconds: float | None = None


class Readiness(Answer):
    """Whether jobs can be taken in and go on."""

    ready: bool
    checks: dict[str, Check]
