"""What an application submits while it is tested, and a stand-in for the server's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar, overload
from urllib.parse import unquote

from fairq import clock
from fairq.calls import Call
from fairq.errors import CycleFound, Refused
from fairq.models import BLOCKED, CANCELLED, COMPLETED, FAILED, FINISHED, READY, Dependency
from fairq.submission import Parent, Submission, job_id_of, new_job_id
from fairq.workflow import refuse_cycle

T = TypeVar("T")
Body = dict[str, Any]

OWNER = "tester"

_MEETS: Mapping[str, frozenset[str]] = {
    COMPLETED: frozenset({COMPLETED}),
    FAILED: frozenset({FAILED}),
    "finished": FINISHED,
}


class Submitted(Sequence[Submission]):
    """The jobs that were submitted, in their order; each has an id.

    It answers clients in place of a server: submissions, reads of what was submitted, and cancels.
    """

    def __init__(self) -> None:
        self._submissions: dict[str, Submission] = {}
        self._jobs: dict[str, Body] = {}

    def __len__(self) -> int:
        return len(self._submissions)

    @overload
    def __getitem__(self, place: int) -> Submission: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Submission]: ...

    def __getitem__(self, place: int | slice) -> Submission | Sequence[Submission]:
        return list(self._submissions.values())[place]

    def of_type(self, name: str) -> list[Submission]:
        """Return those of one type."""
        return [one for one in self if one.type == name]

    # Answering

    def exchange(self, call: Call[T]) -> T:
        """Answer a call as a server would. Raises LookupError for one that has no stand-in."""
        _, kind, *rest = map(unquote, call.path.split("/"))
        match call.method, kind, rest:
            case "POST", "jobs", []:
                return call.read(self._take([call.body])[0])
            case "POST", "jobs", ["batch"]:
                return call.read({"jobs": self._take(call.body["jobs"])})
            case "GET", "jobs", [job_id]:
                return call.read(self._found(job_id))
            case "GET", "jobs", [job_id, "wait"]:
                return call.read(self._waited_for(job_id))
            case "PATCH", "jobs", [job_id, "cancel"]:
                return call.read(self._cancelled(job_id))
        raise unanswered(call)

    def _take(self, bodies: Sequence[Body]) -> list[Body]:
        submissions = [_submission(body) for body in bodies]
        self._check(submissions)
        return [self._add(submission) for submission in submissions]

    def _check(self, submissions: Sequence[Submission]) -> None:
        known = dict(self._submissions)
        for one in submissions:
            if known.setdefault(str(one.job_id), one) != one:
                detail = f"There is another job {one.job_id!r}."
                raise _refusal("job_id_conflict", detail, status=409, job_id=one.job_id)
        for one in submissions:
            for parent in one.depends_on:
                if job_id_of(parent) not in known:
                    raise _refusal("unknown_dependency", f"There is no job {job_id_of(parent)!r}.")
        try:
            refuse_cycle(submissions)
        except CycleFound as found:
            raise _refusal("dependency_cycle", str(found), cycle=found.cycle) from found

    def _add(self, submission: Submission) -> Body:
        job_id = str(submission.job_id)
        if job_id in self._submissions:
            return self._jobs[job_id] | {"duplicate": True}
        self._submissions[job_id] = submission
        self._jobs[job_id] = {
            "job_id": job_id,
            "type": submission.type,
            "payload": dict(submission.payload),
            "status": BLOCKED if submission.depends_on else READY,
            "owner": submission.owner or OWNER,
            "created_at": clock.now().isoformat(),
        }
        return self._jobs[job_id]

    def _found(self, job_id: str) -> Body:
        if job_id not in self._jobs:
            raise _refusal("not_found", f"No job {job_id!r} was submitted.", status=404)
        return self._jobs[job_id]

    def _waited_for(self, job_id: str) -> Body:
        job = self._found(job_id)
        if job["status"] not in FINISHED:
            raise LookupError(f"{job_id} would be waited for in vain: nothing runs before drain()")
        return job

    def _cancelled(self, job_id: str) -> Body:
        job = self._found(job_id)
        if job["status"] in FINISHED:
            raise _refusal("not_cancellable", f"The job is {job['status']}.", status=409)
        return self.finish(job_id, CANCELLED, reason="cancelled_by_user")

    # For whoever runs the jobs

    def next(self) -> Submission | None:
        """Return the first job that is unfinished and waits for none that is."""
        for one in self:
            if self._is_open(one) and all(not self._is_open(p) for p in self._parents(one)):
                return one
        return None

    def is_possible(self, submission: Submission) -> bool:
        """Tell whether all jobs it waited for ended the way it was to wait for."""
        return all(
            self._jobs[job_id_of(parent)]["status"] in _MEETS[_condition(parent)]
            for parent in submission.depends_on
        )

    def finish(self, job_id: str, status: str, **fields: Any) -> Body:
        """Note how a job ended; clients that read it are told."""
        self._jobs[job_id] |= {"status": status, "finished_at": clock.now().isoformat(), **fields}
        return self._jobs[job_id]

    def _is_open(self, submission: Submission) -> bool:
        return self._jobs[str(submission.job_id)]["status"] not in FINISHED

    def _parents(self, submission: Submission) -> list[Submission]:
        return [self._submissions[job_id_of(parent)] for parent in submission.depends_on]


def unanswered(call: Call[Any]) -> LookupError:
    """Return what a call gets that has no stand-in."""
    return LookupError(f"{call.method} {call.path} is not answered while applications are tested")


def _submission(body: Body) -> Submission:
    """Return what a body says, with an id."""
    fields = dict(body)
    for name in ("run_at", "start_by"):
        if name in fields:
            fields[name] = datetime.fromisoformat(fields[name])
    parents = [
        one if isinstance(one, str) else Dependency(**one) for one in fields.pop("depends_on", [])
    ]
    submission = Submission(**fields, depends_on=parents)
    return replace(submission, job_id=submission.job_id or new_job_id())


def _condition(parent: Parent) -> str:
    return parent.when if isinstance(parent, Dependency) else COMPLETED


def _refusal(code: str, detail: str, *, status: int = 422, **more: Any) -> Refused:
    return Refused(status, {"code": code, "detail": detail, **more})
