"""What this process can run, as the engine registers it."""

from collections.abc import Iterable, Mapping
from typing import Any

from scheduler import retry
from scheduler.states import Executor
from scheduler.store.fleet import TypeSpec
from tasks.catalogue import JobKind

_CELERYS_OWN = ("celery.", "fairq.")

_TASK_CPU_UNITS, _TASK_MEMORY_MB, _TASK_TIMEOUT_SECONDS = 1.0, 128, 300.0


def specs_of_kinds(kinds: Iterable[JobKind]) -> list[TypeSpec]:
    """Describe kinds of jobs."""
    return [
        TypeSpec(
            name=kind.name,
            description=kind.description,
            payload_schema=kind.payload_schema,
            cpu_units=kind.cpu_units,
            memory_mb=kind.memory_mb,
            timeout_seconds=kind.timeout_seconds,
            max_timeout_seconds=kind.max_timeout_seconds,
            retry_config=kind.full_retry_config,
            executors=kind.executors,
        )
        for kind in kinds
    ]


def plain_tasks(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Celery tasks that are somebody's work: all but the machinery's."""
    return {name: task for name, task in tasks.items() if not name.startswith(_CELERYS_OWN)}


def specs_of_tasks(tasks: Mapping[str, Any]) -> list[TypeSpec]:
    """Describe plain Celery tasks; their payload is their keyword arguments, unchecked."""
    return [
        TypeSpec(
            name=name,
            description=(task.__doc__ or "").strip().partition("\n")[0],
            payload_schema=None,
            cpu_units=_TASK_CPU_UNITS,
            memory_mb=_TASK_MEMORY_MB,
            timeout_seconds=float(task.soft_time_limit or _TASK_TIMEOUT_SECONDS),
            retry_config=dict(retry.DEFAULTS),
            executors=(Executor.CELERY,),
        )
        for name, task in sorted(plain_tasks(tasks).items())
    ]
