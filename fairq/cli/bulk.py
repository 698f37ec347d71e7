"""``fairq bulk``: one thing done to all jobs that match, in the background."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from fairq.calls import BulkFilter
from fairq.cli import arguments, jobs, options, terminal
from fairq.client import Client
from fairq.models import Bulk


class Action(StrEnum):
    """What may be done to many jobs at a time."""

    CANCEL = "cancel"
    RETRY = "retry"
    PRIORITISE = "prioritise"
    TAG = "tag"


SetPriority = Annotated[
    Any,
    typer.Option(
        parser=arguments.priority, metavar="CLASS", help="For prioritise: a class or a level."
    ),
]
AddTags = Annotated[
    list[str] | None,
    typer.Option("--add-tag", metavar="TAG", help="For tag. May be repeated."),
]
RemoveTags = Annotated[
    list[str] | None,
    typer.Option("--remove-tag", metavar="TAG", help="For tag. May be repeated."),
]


def bulk(  # noqa: PLR0913 - an option for each filter
    *,
    action: Annotated[Action, typer.Argument(help="What to do.")],
    set_priority: SetPriority = None,
    add_tag: AddTags = None,
    remove_tag: RemoveTags = None,
    status: options.Statuses = None,
    type_: options.Types = None,
    priority: options.Priorities = None,
    owner: options.Owner = None,
    tag: options.Tags = None,
    search: options.Search = None,
    created_after: options.Instant = None,
    created_before: options.Instant = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    wait: options.Wait = False,
    as_json: options.AsJson = False,
) -> None:
    """Cancel, retry, prioritise or tag all jobs that match the filters, as those of ls.

    It tells how many and asks, then prints the id of the job that does it; with --wait, its result.
    """
    given = {
        "status": _words(status),
        "type": _words(type_),
        "priority": _words(priority),
        "owner": owner,
        "tag": tag,
        "q": search,
        "created_after": created_after,
        "created_before": created_before,
    }
    wanted: BulkFilter = {name: value for name, value in given.items() if value}  # type: ignore[assignment]  # the names of a filter
    if not wanted:
        raise typer.BadParameter("say which jobs are meant, with a filter")

    def act(client: Client, *, dry_run: bool) -> Bulk:
        return client.bulk(
            action,
            set_priority=set_priority,
            add_tags=add_tag,
            remove_tags=remove_tag,
            dry_run=dry_run,
            **wanted,
        )

    with terminal.connected() as client:
        counted = act(client, dry_run=True)
        if dry_run or not counted.count:
            _print(counted, _count(counted), as_json=as_json)
            return
        if not yes:
            _ask(f"{action} {_count(counted)}?")
        made = act(client, dry_run=False)
        if made.job_id is not None and wait:
            terminal.say(f"{action} {_count(made)}: {made.job_id}")
            jobs.end_with([jobs.awaited(client, made.job_id)], as_json=as_json)
    _print(made, made.job_id or "", as_json=as_json)


def _ask(question: str) -> None:
    """Raise Abort unless the answer is yes. Nothing of it is on stdout, as it would be of Typer."""
    terminal.say(f"{question} [y/N]")
    if terminal.read_line().lower() not in {"y", "yes"}:
        raise typer.Abort


def _words(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def _count(found: Bulk) -> str:
    return f"{'at least ' if found.more else ''}{found.count} jobs"


def _print(told: Bulk, text: str, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(told.as_json())
    else:
        terminal.print_line(text)
