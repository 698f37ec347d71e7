"""Commands about schedules: ``fairq schedules``."""

from typing import Annotated, Any

import typer

from fairq.calls import Timing
from fairq.cli import arguments, options, tables, terminal
from fairq.cli.jobs import read_payload, requirements
from fairq.models import Schedule
from fairq.submission import Submission

app = typer.Typer(help="Jobs that are submitted by the clock; listed without a command.")


@app.callback(invoke_without_command=True)
def _common(context: typer.Context, *, as_json: options.AsJson = False) -> None:
    """List schedules where nothing else is asked for."""
    if context.invoked_subcommand is None:
        ls(as_json=as_json)
    elif as_json:
        raise typer.BadParameter(f"--json goes behind {context.invoked_subcommand}")


@app.command("ls")
def ls(*, as_json: options.AsJson = False) -> None:
    """List schedules."""
    with terminal.connected() as client:
        found = list(client.schedules())
    if not as_json:
        terminal.show(tables.schedules_table(found))
    else:
        for one in found:
            terminal.print_json(one.as_json())


@app.command("show")
def show(*, name: options.Name, as_json: options.AsJson = False) -> None:
    """Show a schedule, and when it runs next."""
    with terminal.connected() as client:
        _print(client.schedule(name), as_json=as_json)


@app.command("create")
def create(  # noqa: PLR0913 - an option for each thing a schedule may say
    *,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    type_: options.TypeName,
    words: options.Words = None,
    payload: options.Payload = None,
    cron: Annotated[str | None, typer.Option(help='Five fields: "0 3 * * *".')] = None,
    every: Annotated[
        Any, typer.Option(parser=arguments.whole_seconds, metavar="TIME", help="Every 5m, instead.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Such as Europe/Berlin.")] = None,
    overlap: Annotated[
        str | None, typer.Option(help="While the last one runs: skip, queue or replace.")
    ] = None,
    catch_up: Annotated[
        str | None, typer.Option(help="What was missed: none, latest or all.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Begin when it is resumed.")] = False,
    priority: options.Priority = None,
    tag: options.Tags = None,
    cpu: options.Cpu = None,
    memory: options.Memory = None,
    timeout: options.Timeout = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a job submitted by the clock."""
    if (cron is None) == (every is None):
        raise typer.BadParameter("give either --cron or --every")
    job = Submission(
        type_,
        read_payload(words, payload),
        priority=priority,
        tags=tag or [],
        resource_requirements=requirements(cpu, memory),
        timeout_seconds=timeout,
    )
    timing = _timing(
        cron=cron,
        every_seconds=every,
        timezone=timezone,
        overlap=overlap,
        catch_up=catch_up,
        paused=paused or None,
    )
    with terminal.connected() as client:
        _print(client.create_schedule(name, job, **timing), as_json=as_json)


@app.command("pause")
def pause(*, name: options.Name, as_json: options.AsJson = False) -> None:
    """Submit nothing until it is resumed."""
    with terminal.connected() as client:
        _print(client.update_schedule(name, paused=True), as_json=as_json)


@app.command("resume")
def resume(*, name: options.Name, as_json: options.AsJson = False) -> None:
    """Submit by the clock again."""
    with terminal.connected() as client:
        _print(client.update_schedule(name, paused=False), as_json=as_json)


@app.command("run")
def run(*, name: options.Name, as_json: options.AsJson = False) -> None:
    """Submit its job now, and print the id."""
    with terminal.connected() as client:
        job = client.run_schedule(name)
    if as_json:
        terminal.print_json(job.as_json())
    else:
        terminal.print_line(job.job_id)


@app.command("rm")
def rm(*, name: options.Name, as_json: options.AsJson = False) -> None:
    """Delete a schedule; jobs it submitted stay."""
    with terminal.connected() as client:
        client.delete_schedule(name)
    if as_json:
        terminal.print_json({"deleted": name})
    else:
        terminal.say(f"deleted {name}")


def _timing(**given: Any) -> Timing:
    timing: Timing = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]  # the names of a timing
    return timing


def _print(schedule: Schedule, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(schedule.as_json())
    else:
        terminal.show(tables.schedule_view(schedule))
