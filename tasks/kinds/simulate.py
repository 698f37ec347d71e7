"""A job that behaves as it is told: for trying things out, for demonstrations and for tests."""

from typing import Any

from pydantic import Field

from tasks.catalogue import Timed, job_type
from tasks.context import Context, DoNotRetry
from tasks.kinds.pace import take_time

_PAGE = 4096


class Simulation(Timed):
    """How the job is to behave."""

    steps: int = Field(0, ge=0, le=10_000, description="Progress is told this often.")
    fail_attempts: int = Field(0, ge=0, description="So many attempts fail before one succeeds.")
    retryable: bool = Field(default=True, description="Whether they are worth another attempt.")
    memory_mb: int = Field(0, ge=0, le=1_000_000, description="Memory to use meanwhile.")
    message: str = Field("", max_length=2000, description="A line for the log.")
    log_lines: int = Field(0, ge=0, le=100_000, description="Further lines for the log.")
    result: Any = Field(None, description="What the job returns.")


class SimulatedFailure(Exception):
    """The attempt was told to fail."""


@job_type(
    "simulate",
    payload=Simulation,
    description="Takes time, memory and log lines, fails and returns as told.",
)
def simulate(context: Context, payload: Simulation) -> Any:
    """Do what the payload says."""
    if payload.message:
        context.info(payload.message)
    for number in range(1, payload.log_lines + 1):
        context.info(f"line {number} of {payload.log_lines}")
    ballast = _occupy(payload.memory_mb)
    take_time(context, payload.duration_seconds, steps=payload.steps, doing="simulating")
    del ballast
    if context.attempt <= payload.fail_attempts:
        told = f"attempt {context.attempt} of {payload.fail_attempts} that are to fail"
        raise SimulatedFailure(told) if payload.retryable else DoNotRetry(told)
    return payload.result


def _occupy(megabytes: int) -> bytearray:
    """Return so much memory, every page of it written to: the system counts only those."""
    block = bytearray(megabytes * 2**20)
    block[::_PAGE] = b"x" * len(block[::_PAGE])
    return block
