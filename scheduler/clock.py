"""The only reader of the clock, and how instants are written."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the present instant, aware and in UTC."""
    return datetime.now(UTC)


def to_rfc3339(instant: datetime) -> str:
    """Write an instant the way answers and messages carry it."""
    return instant.isoformat().replace("+00:00", "Z")
