"""The job of the chaos suite: takes time, fails as told, and records what it did, outside of Fairq.

What it did goes into a table of the suite's own under the key of the attempt, so that an attempt
which runs twice, or asks twice, has done it once. Importing this registers nothing; ``work`` does.
"""

import psycopg
from pydantic import Field

from tasks.catalogue import Timed
from tasks.context import Context

TYPE = "errand"

TABLE = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.effects (
    job_id bigint NOT NULL,
    attempt bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deliveries int NOT NULL DEFAULT 1,
    PRIMARY KEY (job_id, attempt)
);
"""

_RECORD = """
INSERT INTO chaos.effects (job_id, attempt) VALUES (%s, %s)
ON CONFLICT (job_id, attempt) DO UPDATE SET deliveries = effects.deliveries + 1
"""
_PAUSE_SECONDS = 0.2
_CONNECT_SECONDS = 3


class Errand(Timed):
    """How an errand goes."""

    fail_attempts: int = Field(0, ge=0)
    records: bool = True


class ErrandFailed(Exception):
    """The attempt was told to fail."""


def errand(context: Context, payload: Errand) -> int:
    """Do it, last of all where others see it; that is where a death hurts most."""
    context.wait(payload.duration_seconds)
    if context.attempt <= payload.fail_attempts:
        raise ErrandFailed(f"attempt {context.attempt}")
    if payload.records:
        _record(context)
    return context.attempt


def _record(context: Context) -> None:
    """Ask until it is recorded: the outside may be away, or its answer may get lost."""
    url = context.settings.database_url.replace("+psycopg", "")
    key = context.idempotency_key.split(":")
    while True:
        try:
            with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS) as connection:
                connection.execute(_RECORD, key)
        except psycopg.OperationalError:
            context.wait(_PAUSE_SECONDS)
        else:
            return
