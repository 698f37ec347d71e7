"""A workflow in a file, YAML or JSON.

::

    jobs:
      fetch:
        type: data_fetch
        payload: {symbols: [AAPL]}
      report:
        type: report_generation
        depends_on: [fetch]

The names are for the file: ``depends_on`` means them, or ids of jobs that are there already. A job
has an id of its own, made anew each time, unless it says ``job_id``. ``jobs`` may also be a list of
submissions as ``POST /jobs/batch`` takes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import yaml

from fairq.cli import arguments
from fairq.errors import Refused
from fairq.models import Dependency
from fairq.submission import Parent, Submission, new_job_id
from fairq.workflow import refuse_cycle

_FIELDS = frozenset(one.name for one in fields(Submission))
_INSTANTS = ("run_at", "start_by")


class _Loader(yaml.SafeLoader):
    """Reads what JSON can hold: a date stays the text it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and the form are PyYAML's
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True)
class WorkflowFile:
    """The jobs of a file, with the names it gives them."""

    names: Sequence[str]
    submissions: Sequence[Submission]

    @contextmanager
    def naming_refusals(self) -> Iterator[None]:
        """Let refusals of a batch name the jobs as the file does, not by their numbers."""
        try:
            yield
        except Refused as error:
            errors = [
                {"path": self._named(one.path), "message": one.message} for one in error.errors
            ]
            raise Refused(
                error.status, {**error.details, "errors": errors}, retry_after=error.retry_after
            ) from error

    def _named(self, path: str) -> str:
        head, _, rest = path.partition(".")
        number, _, field = rest.partition(".")
        if head != "jobs" or not number.isdecimal() or int(number) >= len(self.names):
            return path
        return ".".join(filter(None, [head, self.names[int(number)], field]))


def read(text: str) -> WorkflowFile:
    """Read a file. Raises ValueError, which names the job and the field, for what is none."""
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"the file is neither YAML nor JSON: {error}") from error
    jobs = _named_jobs(document)
    ids = {name: given.get("job_id") or new_job_id() for name, given in jobs.items()}
    submissions = [_submission(name, given, ids) for name, given in jobs.items()]
    refuse_cycle(submissions)
    return WorkflowFile(list(jobs), submissions)


def _named_jobs(document: Any) -> dict[str, Mapping[str, Any]]:
    jobs = document.get("jobs") if isinstance(document, dict) else None
    if isinstance(jobs, list):
        jobs = {str(number): given for number, given in enumerate(jobs)}
    if not jobs or not isinstance(jobs, dict):
        raise ValueError("the file has no jobs: it begins with `jobs:`, and names them under it")
    if odd := next((name for name, given in jobs.items() if not isinstance(given, dict)), None):
        raise ValueError(f"jobs.{odd} is no job: it has a type, and perhaps a payload")
    return {str(name): given for name, given in jobs.items()}


def _submission(name: str, given: Mapping[str, Any], ids: Mapping[str, str]) -> Submission:
    if unknown := sorted(set(given) - _FIELDS):
        raise ValueError(f"jobs.{name} has no field {unknown[0]}")
    if "type" not in given:
        raise ValueError(f"jobs.{name} needs a type")
    parents = given.get("depends_on", [])
    if not isinstance(parents, list):
        raise ValueError(f"jobs.{name}.depends_on is a list")  # noqa: TRY004 - a file is wrong, not a program
    instants = {one: arguments.instant(str(given[one])) for one in _INSTANTS if one in given}
    waited_for = [_parent(parent, ids) for parent in parents]
    return Submission(**{**given, **instants, "job_id": ids[name], "depends_on": waited_for})


def _parent(given: Any, ids: Mapping[str, str]) -> Parent:
    if isinstance(given, dict) and "job_id" in given:
        return Dependency(**{**given, "job_id": ids.get(given["job_id"], given["job_id"])})
    return ids.get(str(given), str(given))
