"""A list of jobs as a file: CSV for spreadsheets, JSON lines for programs.

Written page by page, so that the length of the list costs no memory.
"""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from flask import Response, stream_with_context
from pydantic_core import to_json

from webapp.answers import json_body

Jobs = Sequence[Mapping[str, Any]]
"""Some jobs as the contract answers them."""

MEDIA_TYPES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}

PAGE = 100
"""Jobs that are held in memory at a time; fewer where their payloads and results are large."""

COLUMNS = (
    "job_id", "type", "status", "reason", "owner", "priority", "priority_level", "description",
    "tags", "resource_requirements.cpu_units", "resource_requirements.memory_mb", "executor",
    "attempt", "created_at", "run_at", "start_by", "ready_at", "queued_at", "started_at",
    "finished_at", "waited_seconds", "elapsed_seconds", "progress.fraction", "progress.message",
    "error.type", "error.message", "worker", "schedule", "request_id", "position_in_queue",
    "waiting.code", "waiting.message",
)  # fmt: skip
"""What stands in a line of CSV, by where it stands in a job."""

JSON_COLUMNS = ("payload", "result")
"""Likewise, written as JSON."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_file(name: str, pages: Iterator[Jobs]) -> Response:
    """Answer with all jobs of *pages* in the format *name*, as a file to keep.

    The first page is read before the answer begins, so that what is refused is an error.
    """
    whole = itertools.chain([next(pages, [])], pages)
    lines = _csv(whole) if name == "csv" else _json_lines(whole)
    response = Response(stream_with_context(lines), content_type=_content_type(name))
    response.headers["Content-Disposition"] = f'attachment; filename="jobs.{name}"'
    response.headers["Vary"] = "Accept"
    return response


def cell(value: Any) -> str:
    """Return what stands in a cell for text, a number, an instant, tags or nothing.

    What a spreadsheet would take for a formula gets an apostrophe before it.
    """
    match value:
        case None:
            return ""
        case int() | float():
            return str(value)
        case datetime():
            return to_json(value).decode().strip('"')
        case list():
            return _harmless(", ".join(value))
        case _:
            return _harmless(str(value))


def _harmless(text: str) -> str:
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _content_type(name: str) -> str:
    return MEDIA_TYPES[name] + ("; charset=utf-8; header=present" if name == "csv" else "")


def _csv(pages: Iterable[Jobs]) -> Iterator[bytes]:
    yield _csv_lines([[*COLUMNS, *JSON_COLUMNS]])
    for jobs in pages:
        yield _csv_lines([_row(job) for job in jobs])


def _row(job: Mapping[str, Any]) -> list[str]:
    told = [cell(_at(job, column)) for column in COLUMNS]
    return told + [_as_json(job[column]) for column in JSON_COLUMNS]


def _as_json(value: Any) -> str:
    return "" if value is None else to_json(value).decode()


def _csv_lines(rows: Iterable[Iterable[str]]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()


def _at(job: Mapping[str, Any], column: str) -> Any:
    value: Any = job
    for part in column.split("."):
        value = None if value is None else value[part]
    return value


def _json_lines(pages: Iterable[Jobs]) -> Iterator[bytes]:
    for jobs in pages:
        yield b"".join(json_body(job) + b"\n" for job in jobs)
