"""Commands about jobs: submit, list, look, follow, cancel, run again, wait."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from fairq import calls
from fairq.calls import JobFilter
from fairq.cli import arguments, completion, ending, options, tables, terminal, workflow_file
from fairq.cli.ending import Exit
from fairq.client import Client
from fairq.clock import Deadline
from fairq.errors import Refused
from fairq.models import Dependency, Job
from fairq.submission import Requirements, Submission

_LOOK_SECONDS = 1.0
"""How often the progress of a job that is waited for is looked at."""

_LIST_LENGTH = 50
_WATCH_SECONDS = 1.0

Duration = Annotated[
    Any, typer.Option(parser=arguments.seconds, metavar="TIME", help="Start no sooner than in 5m.")
]
After = Annotated[
    list[str] | None,
    typer.Option(
        metavar="JOB",
        help="A job to wait for; JOB:failed or JOB:finished for another end. May be repeated.",
        autocompletion=completion.job_ids,
    ),
]


def submit(  # noqa: PLR0913 - an option for each thing a submission may say
    *,
    type_: options.TypeName,
    words: options.Words = None,
    payload: options.Payload = None,
    job_id: Annotated[str | None, typer.Option(metavar="ID", help="Instead of one made.")] = None,
    after: After = None,
    priority: options.Priority = None,
    tag: options.Tags = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="For people.")] = None,
    cpu: options.Cpu = None,
    memory: options.Memory = None,
    timeout: options.Timeout = None,
    max_attempts: Annotated[int | None, typer.Option(metavar="N", help="At most.")] = None,
    run_at: options.Instant = None,
    delay: Duration = None,
    start_by: options.Instant = None,
    executor: Annotated[str | None, typer.Option(metavar="WHO", help="celery or pull.")] = None,
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Told of the end.")
    ] = None,
    owner: options.Owner = None,
    wait: options.Wait = False,
    as_json: options.AsJson = False,
) -> None:
    """Submit a job, and print its id; with --wait, its result."""
    submission = Submission(
        type_,
        read_payload(words, payload),
        job_id=job_id,
        owner=owner,
        description=description,
        tags=tag or [],
        priority=priority,
        depends_on=[_parent(one) for one in after or []],
        resource_requirements=requirements(cpu, memory),
        retry_config=None if max_attempts is None else {"max_attempts": max_attempts},
        timeout_seconds=timeout,
        run_at=run_at,
        delay_seconds=delay,
        start_by=start_by,
        executor=executor,
        callback_url=callback_url,
    )
    with terminal.connected() as client:
        job = client.send(calls.submit(submission))
        if wait:
            terminal.say(f"submitted {job.job_id}")
            end_with([awaited(client, job)], as_json=as_json)
    _print_submitted([job], as_json=as_json)


def submit_file(
    *,
    file: Annotated[
        typer.FileText, typer.Argument(metavar="FILE", help="YAML or JSON; - is stdin.")
    ],
    wait: options.Wait = False,
    as_json: options.AsJson = False,
) -> None:
    """Submit the jobs of a file, all or none, and print their ids."""
    with ending.as_usage():
        flow = workflow_file.read(file.read())
    with terminal.connected() as client, flow.naming_refusals():
        jobs = client.submit_many(flow.submissions)
        if wait:
            terminal.say(f"submitted {len(jobs)} jobs")
            end_with(_awaited_all(client, jobs), as_json=as_json)
    _print_submitted(jobs, as_json=as_json)


def ls(  # noqa: PLR0913 - an option for each filter
    *,
    status: options.Statuses = None,
    type_: options.Types = None,
    priority: options.Priorities = None,
    owner: options.Owner = None,
    tag: options.Tags = None,
    search: options.Search = None,
    created_after: options.Instant = None,
    created_before: options.Instant = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = _LIST_LENGTH,
    every: Annotated[bool, typer.Option("--all", help="Without a limit.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List jobs, newest first; watched with --json, one array a look."""
    given = {
        "status": status,
        "type": type_,
        "priority": priority,
        "owner": owner,
        "tag": tag,
        "q": search,
        "created_after": created_after,
        "created_before": created_before,
        "sort": "oldest" if oldest else None,
    }
    wanted: JobFilter = {name: value for name, value in given.items() if value}  # type: ignore[assignment]  # the names of a filter
    with terminal.connected() as client:

        def found() -> Iterable[Job]:
            return islice(client.jobs(**wanted), None if every else limit)

        if watch and as_json:
            terminal.watch_json(lambda: [job.as_json() for job in found()], _WATCH_SECONDS)
        elif watch:
            terminal.watch(lambda: tables.jobs_table(found()), _WATCH_SECONDS)
        else:
            _print_jobs(found(), as_json=as_json)


def show(
    *, job_id: options.JobId, owner: options.Owner = None, as_json: options.AsJson = False
) -> None:
    """Show everything about a job: how it stands and why, its attempts, its result."""
    with terminal.connected() as client:
        job = client.job(job_id, owner=owner)
        attempts = client.attempts(job)
    if as_json:
        terminal.print_json(job.as_json() | {"attempts": [one.as_json() for one in attempts]})
    else:
        terminal.show(tables.job_view(job, attempts))


def logs(
    *,
    job_id: options.JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is finished.")
    ] = False,
    owner: options.Owner = None,
    as_json: options.AsJson = False,
) -> None:
    """Print what a job wrote."""
    with terminal.connected() as client:
        for line in client.logs(job_id, follow=follow, owner=owner):
            if as_json:
                terminal.print_json(line.as_json())
            else:
                terminal.print_line(tables.log_line(line))


def cancel(
    *, job_ids: options.JobIds, owner: options.Owner = None, as_json: options.AsJson = False
) -> None:
    """Cancel jobs; one that runs is cancelled as soon as it has stopped."""
    with terminal.connected() as client:
        _each(job_ids, lambda one: client.cancel(one, owner=owner), as_json=as_json)


def retry(
    *, job_ids: options.JobIds, owner: options.Owner = None, as_json: options.AsJson = False
) -> None:
    """Run failed or cancelled jobs again, with fresh attempts."""
    with terminal.connected() as client:
        _each(job_ids, lambda one: client.retry(one, owner=owner), as_json=as_json)


def wait(
    *,
    job_ids: options.JobIds,
    timeout: options.Patience = None,
    owner: options.Owner = None,
    as_json: options.AsJson = False,
) -> None:
    """Wait until jobs are finished; the exit code tells the worst end."""
    with terminal.connected() as client:
        if len(job_ids) == 1:
            jobs = [awaited(client, job_ids[0], Deadline(timeout), owner)]
        else:
            jobs = _awaited_all(client, job_ids, Deadline(timeout), owner)
    end_with(jobs, as_json=as_json)


def read_payload(words: Sequence[str] | None, text: str | None) -> dict[str, Any]:
    """Return the payload that was typed or piped in."""
    given = list(words or [])
    piped = "-" in given or text == "-"
    pairs = [word for word in given if word != "-"]
    with ending.as_usage():
        return arguments.payload_of(pairs, terminal.read_stdin() if piped else text)


def requirements(cpu: float | None, memory: int | None) -> Requirements | None:
    """Return what a job takes, as far as it was typed."""
    needs: Requirements = {}
    if cpu is not None:
        needs["cpu_units"] = cpu
    if memory is not None:
        needs["memory_mb"] = memory
    return needs or None


def _parent(word: str) -> Dependency:
    job_id, condition = arguments.dependency(word)
    return Dependency(job_id=job_id, when=condition)


def _print_submitted(jobs: Iterable[Job], *, as_json: bool) -> None:
    for job in jobs:
        if as_json:
            terminal.print_json(job.as_json())
        else:
            terminal.print_line(job.job_id)


def _print_jobs(jobs: Iterable[Job], *, as_json: bool) -> None:
    if as_json:
        for job in jobs:
            terminal.print_json(job.as_json())
    else:
        terminal.show(tables.jobs_table(jobs))


def _each(job_ids: Iterable[str], act: Callable[[str], Job], *, as_json: bool) -> None:
    """Do *act* to each; one that is refused does not keep the others from their turn."""
    code = Exit.DONE
    for job_id in job_ids:
        try:
            job = act(job_id)
        except Refused as error:
            terminal.say(f"fairq: {job_id}: {ending.explanation(error)}")
            code = ending.exit_code(error)
        else:
            if as_json:
                terminal.print_json(job.as_json())
            else:
                terminal.print_line(f"{job.job_id} {job.status}")
    raise typer.Exit(code)


def awaited(
    client: Client, job: str | Job, deadline: Deadline | None = None, owner: str | None = None
) -> Job:
    """Return a job once it is finished or the time is over, showing its progress meanwhile."""
    with terminal.progress("waiting", total=1) as tell:

        def look(found: Job) -> None:
            fraction = (found.progress and found.progress.fraction) or 0
            tell(fraction, f"{found.job_id} {found.status} {tables.detail(found)}")

        return _until_finished(client, job, deadline or Deadline(None), owner, look)


def _awaited_all(
    client: Client,
    jobs: Sequence[str | Job],
    deadline: Deadline | None = None,
    owner: str | None = None,
) -> list[Job]:
    """Return jobs once they are finished or the time is over, showing how many are."""
    found: list[Job] = []
    with terminal.progress("waiting", total=len(jobs)) as tell:
        for job in jobs:
            tell(len(found), f"{len(found)} of {len(jobs)} finished")
            end = _until_finished(client, job, deadline or Deadline(None), owner, lambda _: None)
            found.append(end)
    return found


def _until_finished(
    client: Client,
    job: str | Job,
    deadline: Deadline,
    owner: str | None,
    look: Callable[[Job], None],
) -> Job:
    while True:
        found = client.send(calls.wait(job, deadline.left(at_most=_LOOK_SECONDS), owner))
        if found.is_finished or deadline.is_over():
            return found
        look(found)


def end_with(jobs: Sequence[Job], *, as_json: bool) -> None:
    """Print how jobs ended, and end the command accordingly."""
    for job in jobs:
        if as_json:
            terminal.print_json(job.as_json())
        else:
            terminal.say(tables.ending(job))
    if not as_json and len(jobs) == 1 and jobs[0].result is not None:
        terminal.print_json(jobs[0].result)
    raise typer.Exit(ending.exit_code_of(jobs))
