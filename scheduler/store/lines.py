"""Putting jobs into their owners' lines: the end of every verb that makes a job ready."""

from scheduler.policy.parameters import EXPECTED_DEFAULT, EXPECTED_LEAST

JOIN_LINE = f""",
lined AS (
    INSERT INTO ready (owner_id, rank, job_id, job_type, job_class, tags, cpu_units,
                       memory_mb, expected_seconds, timeout_seconds, ready_at, executor)
    SELECT owner_id, rank, id, type, job_class, tags, cpu_units, memory_mb,
           GREATEST({EXPECTED_LEAST.total_seconds()}, LEAST(timeout_seconds,
               COALESCE(estimated_seconds, {EXPECTED_DEFAULT.total_seconds()}))),
           timeout_seconds, ready_at, executor
    FROM moved WHERE status = :is_ready
),
noted AS (
    INSERT INTO feed (kind, job_id, owner_id, rank)
    SELECT 'lined', min(id), owner_id, min(rank) FROM moved WHERE status = :is_ready
    GROUP BY owner_id
)
"""
"""Follows ``moved``, which must return ``jobs.*``."""

PLACE = (
    "COALESCE(jobs.rank, CAST(EXTRACT(epoch FROM now()) * 1000000 AS bigint) + jobs.rank_offset)"
)
"""A job's rank: the instant it first became ready, moved by its class; kept from then on."""
