"""A request for each route that takes one, as somebody might really send it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from scheduler.job_request import JobRequest
from scheduler.states import JobStatus
from webapp.schemas import (
    bulk,
    dead_letters,
    jobs,
    people,
    policy,
    pull,
    schedules,
    simplequeue,
    tokens,
)

_JOB = {
    "type": "simulate",
    "job_id": "report-7",
    "payload": {"seconds": 2},
    "description": "Weekly figures",
    "tags": ["weekly"],
    "priority": "high",
    "resource_requirements": {"cpu_units": 0.5, "memory_mb": 64},
    "retry_config": {"max_attempts": 3, "strategy": "exponential", "base_delay_seconds": 1},
}
_CHAIN = [
    {"type": "simulate", "job_id": "load"},
    {"type": "simulate", "job_id": "merge", "depends_on": ["load"]},
]
_CAPS = {"cpu_units": 8, "memory_mb": 16384, "running_jobs": 4, "backlog": 1000}
_NIGHTS = {
    "name": "nights",
    "match": {"group": "physics", "hours": {"from": "22:00", "to": "06:00", "timezone": "UTC"}},
    "effect": {"weight": {"times": 2}},
}
_POLICY = {
    "capacity": {"cpu_units": 16, "memory_mb": None},
    "rules": [_NIGHTS],
    "types": {"simulate": {"max_running": 4, "max_per_minute": 60}},
    "classes": {"low": {"paused": False}},
}

EXAMPLES: Mapping[type[BaseModel], Mapping[str, Any]] = MappingProxyType(
    {
        JobRequest: _JOB,
        jobs.BatchRequest: {"jobs": _CHAIN},
        jobs.JobPatch: {"priority": "high", "resource_requirements": {"memory_mb": 128}},
        bulk.BulkRequest: {"action": "cancel", "filter": {"tag": "weekly"}, "dry_run": True},
        dead_letters.DeadLettersRetry: {"job_ids": ["report-7"], "payload": {"seconds": 1}},
        dead_letters.DeadLettersRequest: {"filter": {"type": "simulate", "q": "timed out"}},
        pull.NextRequest: {"worker": "scanner-1", "lease_seconds": 30, "wait_seconds": 20},
        pull.HeartbeatRequest: {
            "lease": "the lease that came with the job",
            "progress": {"fraction": 0.5, "message": "page 3 of 6"},
            "logs": ["read page 3"],
        },
        pull.CompleteRequest: {
            "lease": "the lease that came with the job",
            "status": JobStatus.COMPLETED,
            "result": {"pages": 6},
        },
        simplequeue.SimpleSubmission: {
            "jobId": "scan-1",
            "description": "Scan",
            "data": {"pages": 6},
        },
        simplequeue.SimpleCompletion: {"jobId": "scan-1", "status": "succeeded"},
        schedules.ScheduleRequest: {
            "name": "nightly",
            "cron": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "overlap": "skip",
            "template": {"type": "simulate"},
        },
        schedules.SchedulePatch: {"cron": "0 4 * * MON-FRI", "paused": False},
        tokens.TokenRequest: {"name": "laptop", "scopes": ["read", "submit"]},
        people.UserRequest: {
            "username": "grace",
            "password": "a long pass phrase",
            "role": "user",
            "weight": 2,
            "caps": _CAPS,
        },
        people.UserPatch: {"weight": 1.5, "caps": {"running_jobs": 8}},
        people.GroupRequest: {"name": "physics", "weight": 3, "caps": _CAPS},
        people.GroupPatch: {"caps": {"backlog": None}},
        policy.PolicyRequest: {"version": 1, **_POLICY},
        policy.PolicyDraft: _POLICY,
    }
)
"""By what the route takes."""
