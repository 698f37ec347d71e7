"""How a command ends: its exit code, and one line about what went wrong."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from types import MappingProxyType

import typer

from fairq.errors import FairqError, NoAnswer, NotFinished, Refused
from fairq.models import CANCELLED, FAILED, FINISHED, Job


class Exit(IntEnum):
    """The exit code of a command."""

    DONE = 0  # it did what it says; with --wait: the job completed
    FAILED = 1  # the job that was waited for failed
    USAGE = 2  # the command cannot be understood
    CANCELLED = 3  # the job that was waited for was cancelled
    NOT_FINISHED = 4  # the time to wait was over first
    REFUSED = 5  # the server said no, or nobody is signed in
    NO_ANSWER = 6  # the server cannot be reached, or is away
    BROKEN = 7  # something here is in the way: a file, a closed pipe, a mistake in this program
    INTERRUPTED = 130  # Ctrl-C, or no to a question


_WHAT_TO_DO: Mapping[str, str] = MappingProxyType(
    {
        "unauthenticated": "run `fairq login`",
        "insufficient_scope": "run `fairq login` with another --scope",
        "not_found": "`fairq ls` lists what there is; jobs of others need --owner",
        "ambiguous_job_id": "say whose job with --owner",
        "job_id_conflict": "choose another --job-id",
        "unknown_type": "`fairq types` lists what there is",
        "never_fits": "`fairq stats` tells the capacity",
        "unexpected_answer": "check the address",
    }
)


@contextmanager
def as_usage() -> Iterator[None]:
    """Let what cannot be understood end the command as wrong use."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def exit_code(error: Exception) -> Exit:
    """Return the exit code of a command that *error* ended."""
    match error:
        case NotFinished():
            return Exit.NOT_FINISHED
        case NoAnswer():
            return Exit.NO_ANSWER
        case Refused(status=502 | 503 | 504):
            return Exit.NO_ANSWER
        case FairqError():
            return Exit.REFUSED
    return Exit.BROKEN


def exit_code_of(jobs: Iterable[Job]) -> Exit:
    """Return the exit code of a command that waited for *jobs*: the worst end counts."""
    ends = {job.status for job in jobs}
    if FAILED in ends:
        return Exit.FAILED
    if CANCELLED in ends:
        return Exit.CANCELLED
    return Exit.DONE if ends <= FINISHED else Exit.NOT_FINISHED


def explanation(error: Exception) -> str:
    """Say what went wrong and what to do, in one line."""
    if not isinstance(error, FairqError | OSError):
        return " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, NoAnswer):
        return f"{error}; is the server running, and is the address right?"
    if isinstance(error, Refused):
        return _with_help(_of_refusal(error), _help(error))
    return str(error)


def _of_refusal(error: Refused) -> str:
    fields = [f"{one.path}: {one.message}" for one in error.errors if one.message != error.detail]
    return " ".join([error.detail, "; ".join(fields)]).strip()


def _help(error: Refused) -> str | None:
    if error.retry_after:
        return f"try again in {error.retry_after:g} s"
    return _WHAT_TO_DO.get(error.code)


def _with_help(said: str, what_to_do: str | None) -> str:
    return said if what_to_do is None else f"{said.rstrip('.')}; {what_to_do}"
