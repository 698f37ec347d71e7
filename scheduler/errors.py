"""Every exception that callers of the engine meet.

FairqError
├── SettingsInvalid
├── SubmissionRefused        the submission cannot be accepted; `code` says why
│   ├── Malformed            what was sent cannot be read; `wrong` names its fields
│   ├── UnknownOwner
│   ├── CallbackPrivate
│   ├── UnknownType
│   ├── PayloadInvalid
│   ├── TimeoutTooLong
│   ├── WrongExecutor
│   ├── UnknownDependency
│   ├── DependencyCycle
│   ├── NeverFits
│   ├── BacklogFull
│   ├── JobIdConflict
│   └── OwnerInactive
├── JobNotFound
├── MoveRefused              the job's state does not allow the move
├── PolicyConflict           the policy was changed meanwhile
├── TimingInvalid            nobody can say when a schedule fires
├── ScenarioInvalid          a scenario cannot be played; `problems` name its fields
└── LeadershipLost           another scheduler leads now
"""

from collections.abc import Sequence
from dataclasses import dataclass


class FairqError(Exception):
    """Base of everything the engine raises."""

    code = "error"


class SettingsInvalid(FairqError):
    """The environment does not describe a usable installation."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class SubmissionRefused(FairqError):
    """A submission cannot be accepted; nothing of it was stored.

    *path* names the field in the body, as in ``jobs.3.depends_on``.
    """

    code = "invalid"

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class WrongField:
    """What is wrong with one field of what was sent."""

    path: str
    message: str


class Malformed(SubmissionRefused):
    """What was sent cannot be read, or not as what it should be; *wrong* names its fields."""

    code = "validation_failed"

    def __init__(
        self, message: str, wrong: Sequence[WrongField] = (), *, code: str | None = None
    ) -> None:
        super().__init__(message, path=wrong[0].path if wrong else "")
        self.wrong = tuple(wrong)
        self.code = code or self.code


class UnknownOwner(SubmissionRefused):
    """Nobody of this name has an active account that may own jobs."""

    code = "unknown_owner"

    def __init__(self, name: str, *, path: str) -> None:
        super().__init__(f"there is no active user {name!r} who may own jobs", path=path)


class CallbackPrivate(SubmissionRefused):
    """A callback is to go to a private address, and this installation does not allow it."""

    code = "validation_failed"

    def __init__(self, *, path: str) -> None:
        super().__init__("leads to a private address, where callbacks do not go", path=path)


class UnknownType(SubmissionRefused):
    """No worker has registered this job type."""

    code = "unknown_type"


class PayloadInvalid(SubmissionRefused):
    """The payload does not match the schema of the job's type."""

    code = "validation_failed"


class TimeoutTooLong(SubmissionRefused):
    """A job asks for more time than its type allows."""

    code = "validation_failed"


class WrongExecutor(SubmissionRefused):
    """A job is to be run by somebody who does not run jobs of its type."""

    code = "validation_failed"


class UnknownDependency(SubmissionRefused):
    """A job is to wait for one that does not exist."""

    code = "unknown_dependency"


class DependencyCycle(SubmissionRefused):
    """Jobs of a batch wait for each other in a circle; *cycle* starts and ends with the same id."""

    code = "dependency_cycle"

    def __init__(self, cycle: Sequence[str], *, path: str = "") -> None:
        super().__init__("the jobs wait for each other: " + " -> ".join(cycle), path=path)
        self.cycle = tuple(cycle)


class NeverFits(SubmissionRefused):
    """A job asks for more than the whole capacity."""

    code = "never_fits"


class BacklogFull(SubmissionRefused):
    """The owner has as many unfinished jobs as allowed."""

    code = "backlog_full"


class JobIdConflict(SubmissionRefused):
    """A job of this owner has the same id or key and other content; *job_id* names it."""

    code = "job_id_conflict"

    def __init__(self, job_id: str, *, path: str = "") -> None:
        message = f"job {job_id!r} exists with other content; nothing was changed"
        super().__init__(message, path=path)
        self.job_id = job_id


class OwnerInactive(SubmissionRefused):
    """The schedule's owner is not active, or may not own jobs."""

    code = "unknown_owner"

    def __init__(self) -> None:
        super().__init__("its owner has no active account that may own jobs")


class JobNotFound(FairqError):
    """There is no such job, or not for this caller."""

    code = "not_found"


class MoveRefused(FairqError):
    """The job's state does not allow this move."""

    code = "move_refused"


class PolicyConflict(FairqError):
    """The policy was changed since it was read."""

    code = "policy_conflict"


class TimingInvalid(FairqError):
    """A schedule has no ticks, or nobody here can tell when; *field* names what is to blame."""

    code = "timing_invalid"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ScenarioInvalid(FairqError):
    """A scenario cannot be played."""

    code = "scenario_invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class LeadershipLost(FairqError):
    """Another scheduler leads now; nothing of this turn was written."""

    code = "leadership_lost"
