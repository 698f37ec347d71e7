"""Server-sent events, taken apart as a browser does."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event; *id* is what a browser would send as ``Last-Event-ID`` after it."""

    name: str
    data: Any
    id: int | None


def parse(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of a stream; an event without an id leaves the last one in force."""
    last: int | None = None
    for block in _blocks(chunks):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            name, _, value = line.partition(": ")
            fields[name] = value
        if "id" in fields:
            last = int(fields["id"])
        if "data" in fields:
            yield Event(fields.get("event", "message"), json.loads(fields["data"]), last)


def comments(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the comments of a stream."""
    for block in _blocks(chunks):
        if block.startswith(":"):
            yield block[1:].strip()


def _blocks(chunks: Iterable[bytes]) -> Iterator[str]:
    left = b""
    for chunk in chunks:
        *whole, left = (left + chunk).split(b"\n\n")
        yield from (block.decode() for block in whole)
