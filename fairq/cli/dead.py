"""Commands about dead letters: ``fairq dead``."""

from itertools import islice
from typing import Annotated

import typer

from fairq.calls import Cleared, DeadLetterFilter
from fairq.cli import arguments, completion, ending, options, tables, terminal
from fairq.cli.ending import Exit

_LIST_LENGTH = 50

app = typer.Typer(no_args_is_help=True, help="Jobs that failed for good: look, run again, discard.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="JOB", autocompletion=completion.job_ids)]
Alike = Annotated[
    str | None, typer.Option("--alike", metavar="FINGERPRINT", help="Those with this error.")
]
TypeOption = Annotated[str | None, typer.Option("--type", autocompletion=completion.types)]
Search = Annotated[str | None, typer.Option(help="Text in the id, the description or the error.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them.")]


@app.command("ls")
def ls(
    *,
    alike: Alike = None,
    type_: TypeOption = None,
    owner: options.Owner = None,
    search: Search = None,
    group: Annotated[bool, typer.Option("--group", help="Those with alike errors as one.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = _LIST_LENGTH,
    as_json: options.AsJson = False,
) -> None:
    """List dead letters, the latest failure first."""
    wanted = _filter(alike, type_, owner, search)
    with terminal.connected() as client:
        if group:
            groups = list(islice(client.dead_letter_groups(**wanted), limit))
            table, shown = tables.groups_table(groups), [one.as_json() for one in groups]
        else:
            letters = list(islice(client.dead_letters(**wanted), limit))
            table, shown = tables.letters_table(letters), [one.as_json() for one in letters]
    if not as_json:
        terminal.show(table)
    else:
        for one in shown:
            terminal.print_json(one)


@app.command("retry")
def retry(
    *,
    job_ids: Ids = None,
    alike: Alike = None,
    type_: TypeOption = None,
    owner: options.Owner = None,
    search: Search = None,
    everything: Everything = False,
    payload: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Merged into each payload; null takes a field away."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Run dead letters again, with fresh attempts."""
    wanted = _meant(job_ids, _filter(alike, type_, owner, search), everything=everything)
    with ending.as_usage():
        patch = None if payload is None else arguments.json_object(payload)
    with terminal.connected() as client, terminal.progress("running them again", total=None):
        cleared = client.retry_dead_letters(
            *(job_ids or []), payload=patch, everything=everything, **wanted
        )
    _end_with("retried", cleared, job_ids, as_json=as_json)


@app.command("discard")
def discard(
    *,
    job_ids: Ids = None,
    alike: Alike = None,
    type_: TypeOption = None,
    owner: options.Owner = None,
    search: Search = None,
    everything: Everything = False,
    as_json: options.AsJson = False,
) -> None:
    """Take dead letters out of the list; the jobs stay failed."""
    wanted = _meant(job_ids, _filter(alike, type_, owner, search), everything=everything)
    with terminal.connected() as client, terminal.progress("discarding them", total=None):
        cleared = client.discard_dead_letters(*(job_ids or []), everything=everything, **wanted)
    _end_with("discarded", cleared, job_ids, as_json=as_json)


def _filter(
    alike: str | None, type_: str | None, owner: str | None, search: str | None
) -> DeadLetterFilter:
    given = {"fingerprint": alike, "type": type_, "owner": owner, "q": search}
    wanted: DeadLetterFilter = {name: value for name, value in given.items() if value}  # type: ignore[assignment]  # the names of a filter
    return wanted


def _meant(
    job_ids: list[str] | None, wanted: DeadLetterFilter, *, everything: bool
) -> DeadLetterFilter:
    """Return the filter, once it is clear that it means what was typed."""
    narrowed = set(wanted) - {"owner"}
    if sum([bool(job_ids), bool(narrowed), everything]) != 1:
        raise typer.BadParameter("name jobs, or give a filter, or say --all")
    return wanted


def _end_with(done: str, cleared: Cleared, job_ids: list[str] | None, *, as_json: bool) -> None:
    """Print what became of them; one that was named and is no dead letter was not found."""
    if as_json:
        terminal.print_json({done: cleared.done, "skipped": cleared.skipped})
    else:
        skipped = f", {cleared.skipped} skipped" if cleared.skipped else ""
        terminal.print_line(f"{cleared.done} {done}{skipped}")
    if job_ids and cleared.skipped:
        raise typer.Exit(Exit.REFUSED)
