"""Jobs that wait for each other, drawn with arrows and submitted as one batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Generic, TypeVar, Unpack

from fairq.errors import CycleFound
from fairq.models import COMPLETED, Dependency
from fairq.submission import Fields, Parent, Submission, job_id_of, new_job_id

Sent = TypeVar("Sent")


class Stage:
    """Some jobs of a workflow; ``stage >> others`` makes the others wait for all of them."""

    def __init__(self, nodes: Sequence["Node"], when: str = COMPLETED) -> None:
        self.nodes = nodes
        self._when = when

    def when(self, condition: str) -> "Stage":
        """Let those behind the next arrow wait for another end: ``finished`` or ``failed``."""
        return Stage(self.nodes, condition)

    def __rshift__(self, others: "Stage | Iterable[Node]") -> "Stage":
        behind = _stage(others)
        for node in behind.nodes:
            node.wait_for(self.nodes, self._when)
        return behind

    def __rrshift__(self, others: "Stage | Iterable[Node]") -> "Stage":
        return _stage(others) >> self


class Node(Stage):
    """One job of a workflow."""

    def __init__(self, submission: Submission) -> None:
        super().__init__([self])
        self._submission = submission
        self._conditions: dict[str, str] = {}

    @property
    def job_id(self) -> str:
        """The id it will have."""
        return str(self._submission.job_id)

    def wait_for(self, nodes: Iterable["Node"], condition: str) -> None:
        """Wait for *nodes* to end in that way."""
        self._conditions |= {node.job_id: condition for node in nodes}

    def submission(self) -> Submission:
        """Return the job with everything it waits for."""
        drawn = [_parent(job_id, when) for job_id, when in self._conditions.items()]
        given = self._submission.depends_on
        others = [one for one in given if job_id_of(one) not in self._conditions]
        return replace(self._submission, depends_on=[*others, *drawn])


class Workflow(Generic[Sent]):
    """A graph of jobs, made by ``workflow()`` of a client.

    ::

        flow = client.workflow()
        fetch = flow.job("data_fetch", {"symbols": ["AAPL"]})
        means, charts = flow.job("data_processing"), flow.job("data_export")
        fetch >> [means, charts] >> flow.job("report_generation")
        flow.submit()
    """

    def __init__(self, send: Callable[[Sequence[Submission]], Sent]) -> None:
        self._send = send
        self._nodes: list[Node] = []

    def job(
        self, type_: str, payload: Mapping[str, Any] | None = None, /, **fields: Unpack[Fields]
    ) -> Node:
        """Add a job. Its id is made now, unless it is given one."""
        return self.add(Submission(type_, payload or {}, **fields))

    def add(self, submission: Submission) -> Node:
        """Add a job that is described already."""
        node = Node(replace(submission, job_id=submission.job_id or new_job_id()))
        self._nodes.append(node)
        return node

    def submissions(self) -> list[Submission]:
        """Return the jobs as they were added. Raises CycleFound if they wait for each other."""
        made = [node.submission() for node in self._nodes]
        refuse_cycle(made)
        return made

    def submit(self) -> Sent:
        """Submit all jobs or, if anything is wrong with one, none; return them as answered.

        Raises CycleFound, before anything is sent, if they wait for each other.
        """
        return self._send(self.submissions())


def refuse_cycle(submissions: Iterable[Submission]) -> None:
    """Raise CycleFound if some of the jobs wait for each other; other jobs are not looked at."""
    graph = {one.job_id: [job_id_of(parent) for parent in one.depends_on] for one in submissions}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise CycleFound(error.args[1]) from error


def _parent(job_id: str, condition: str) -> Parent:
    return job_id if condition == COMPLETED else Dependency(job_id=job_id, when=condition)


def _stage(nodes: Stage | Iterable[Node]) -> Stage:
    return nodes if isinstance(nodes, Stage) else Stage(list(nodes))
