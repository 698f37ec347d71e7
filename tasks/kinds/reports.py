"""Demonstration jobs that write a small report in plain text."""

from typing import Any

from pydantic import Field

from tasks.catalogue import Demonstration, job_type
from tasks.context import Context
from tasks.kinds.data import Symbol, figures, prices, write_file
from tasks.kinds.pace import take_time

_WINDOW = 5


class Market(Demonstration):
    """What to report on."""

    title: str = Field("Market report", min_length=1, max_length=200)
    symbols: list[Symbol] = Field(default=["AAPL", "GOOGL"], min_length=1, max_length=100)
    days: int = Field(30, ge=2, le=3650)


@job_type("report_generation", payload=Market, description="Writes a report on made-up prices.")
def report_generation(context: Context, payload: Market) -> dict[str, Any]:
    """Write a table of figures, one line for each symbol."""
    take_time(context, payload.duration_seconds, doing="writing the report")
    table = _table(payload.symbols, payload.days)
    return _publish(context, payload.title, f"{payload.days} days\n\n{table}")


class Daily(Demonstration):
    """Which report, and for which day."""

    report_type: str = Field("daily_summary", min_length=1, max_length=100)
    date: str | None = Field(None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    symbols: list[Symbol] = Field(default=["AAPL", "GOOGL"], min_length=1, max_length=100)


@job_type(
    "generate_report",
    payload=Daily,
    description="Writes a report of a named type, such as a daily summary.",
)
def generate_report(context: Context, payload: Daily) -> dict[str, Any]:
    """Write a report named for its type and day."""
    take_time(context, payload.duration_seconds, doing="writing the report")
    title = payload.report_type.replace("_", " ").capitalize()
    day = payload.date or "latest day"
    return _publish(context, title, f"{day}\n\n{_table(payload.symbols, _WINDOW)}")


def _table(symbols: list[str], days: int) -> str:
    lines = [f"{'symbol':<20}{'last':>12}{'mean':>12}{'lowest':>12}{'highest':>12}"]
    for symbol in symbols:
        found = figures(prices(symbol, days), _WINDOW)
        shown = "".join(f"{found[key]:>12.2f}" for key in ("last", "mean", "lowest", "highest"))
        lines.append(f"{symbol:<20}{shown}")
    return "\n".join(lines)


def _publish(context: Context, title: str, body: str) -> dict[str, Any]:
    text = f"{title}\n{'=' * len(title)}\n\n{body}\n"
    written = write_file(context, "report.txt", text)
    context.info(f"wrote {title!r}")
    return {"title": title, "file": str(written), "text": text}
