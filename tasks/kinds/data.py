"""Demonstration jobs on data: fetch, process, export. Small real work on made-up prices."""

import csv
import io
import json
import random
import statistics
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.catalogue import Demonstration, job_type
from tasks.context import Context
from tasks.kinds.pace import take_time

_FIRST_DAY = date(2024, 1, 2)
_SHOWN_PRICES = 30

Symbol = Annotated[str, Field(min_length=1, max_length=20)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]


class Fetch(Demonstration):
    """What to fetch, and from where."""

    source: str = Field("market_api", max_length=200)
    symbols: list[Symbol] = Field(default=["AAPL", "GOOGL"], min_length=1, max_length=100)
    days: int = Field(30, ge=1, le=3650)


@job_type("data_fetch", payload=Fetch, description="Fetches made-up prices, always the same.")
def data_fetch(context: Context, payload: Fetch) -> dict[str, Any]:
    """Return a series of prices for each symbol."""
    take_time(context, payload.duration_seconds, doing=f"fetching from {payload.source}")
    series = {symbol: prices(symbol, payload.days) for symbol in payload.symbols}
    context.info(f"fetched {payload.days} days of {', '.join(series)} from {payload.source}")
    shown = {symbol: values[-_SHOWN_PRICES:] for symbol, values in series.items()}
    return {"source": payload.source, "days": payload.days, "prices": shown}


def prices(symbol: str, days: int) -> list[float]:
    """Return made-up closing prices: a random walk that is the same for the same symbol."""
    chance = random.Random(symbol)  # noqa: S311 - made up on purpose, and the same every time
    price, walk = chance.uniform(50, 400), []
    for _ in range(days):
        price = max(1.0, price * (1 + chance.gauss(0.0004, 0.015)))
        walk.append(round(price, 2))
    return walk


class Processing(Demonstration):
    """What to compute from: *values*, or the made-up prices of *symbols*."""

    values: list[Number] | None = Field(None, min_length=2, max_length=100_000)
    symbols: list[Symbol] = Field(default=["AAPL", "GOOGL"], min_length=1, max_length=100)
    days: int = Field(250, ge=2, le=3650)
    window: int = Field(5, ge=1, le=1000, description="Length of the moving average.")


@job_type("data_processing", payload=Processing, description="Computes figures from series.")
def data_processing(context: Context, payload: Processing) -> dict[str, Any]:
    """Return the figures of each series."""
    take_time(context, payload.duration_seconds, doing="computing")
    if payload.values is not None:
        series = {"values": payload.values}
    else:
        series = {symbol: prices(symbol, payload.days) for symbol in payload.symbols}
    found = {name: figures(values, payload.window) for name, values in series.items()}
    context.info(f"computed the figures of {len(found)} series")
    return {"figures": found}


def figures(values: Sequence[float], window: int) -> dict[str, float]:
    """Return what is worth knowing about a series."""
    recent = values[-window:]
    return {
        "count": len(values),
        "mean": round(statistics.fmean(values), 4),
        "standard_deviation": round(statistics.stdev(values), 4),
        "lowest": min(values),
        "highest": max(values),
        "last": values[-1],
        "moving_average": round(statistics.fmean(recent), 4),
    }


class Export(Demonstration):
    """What to write."""

    symbols: list[Symbol] = Field(default=["AAPL", "GOOGL"], min_length=1, max_length=100)
    days: int = Field(30, ge=1, le=3650)
    format: Literal["csv", "json"] = "csv"
    filename: str | None = Field(None, pattern=r"^[\w][\w.-]{0,99}$")


@job_type("data_export", payload=Export, description="Writes made-up prices to a file.")
def data_export(context: Context, payload: Export) -> dict[str, Any]:
    """Write the prices of each symbol and day to one file of this job."""
    take_time(context, payload.duration_seconds, doing="exporting")
    rows = list(_rows(payload))
    name = payload.filename or f"export.{payload.format}"
    written = write_file(context, name, _encode(rows, payload.format))
    context.info(f"wrote {len(rows)} rows to {written.name}")
    return {"file": str(written), "rows": len(rows), "bytes": written.stat().st_size}


def write_file(context: Context, name: str, text: str) -> Path:
    """Write a file of this attempt, whole or not at all, and return its path below FAIRQ_HOME."""
    folder = context.settings.home / "files" / context.idempotency_key.replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{name}.part"
    draft.write_text(text, encoding="utf-8")
    return draft.replace(folder / name)


def _rows(payload: Export) -> Iterator[tuple[str, str, float]]:
    for symbol in payload.symbols:
        for day, price in enumerate(prices(symbol, payload.days)):
            yield symbol, (_FIRST_DAY + timedelta(days=day)).isoformat(), price


def _encode(rows: Sequence[tuple[str, str, float]], form: str) -> str:
    header = ("symbol", "date", "price")
    if form == "json":
        return json.dumps([dict(zip(header, row, strict=True)) for row in rows])
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
