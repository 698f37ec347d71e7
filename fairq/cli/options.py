"""Arguments and options that several commands share, named and explained once."""

from typing import Annotated, Any

import typer

from fairq.cli import arguments, completion

JobId = Annotated[str, typer.Argument(metavar="JOB", autocompletion=completion.job_ids)]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB", autocompletion=completion.job_ids)]
TypeName = Annotated[str, typer.Argument(metavar="TYPE", autocompletion=completion.types)]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="The payload; values are JSON where they can be. A single - reads it from stdin.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=completion.schedules)]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result for programs.")]
Owner = Annotated[str | None, typer.Option(metavar="USER", help="Whose job, for operators.")]
Payload = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="The payload as a JSON object; - reads it from stdin."),
]
Priority = Annotated[
    Any,
    typer.Option(
        parser=arguments.priority,
        metavar="CLASS",
        help="critical, high, normal, low, or a level from 0 to 10.",
    ),
]
Instant = Annotated[
    Any,
    typer.Option(parser=arguments.instant, metavar="TIME", help="2026-03-01T12:00, local time."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end, and exit accordingly.")]
Statuses = Annotated[str | None, typer.Option(help="Statuses or groups: running,pending.")]
Types = Annotated[str | None, typer.Option("--type", autocompletion=completion.types)]
Priorities = Annotated[str | None, typer.Option(help="Classes or levels: critical,5.")]
Search = Annotated[str | None, typer.Option(help="Text in the id, the description or a tag.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="May be repeated.")]
Cpu = Annotated[float | None, typer.Option(metavar="UNITS", help="CPU units it takes.")]
Memory = Annotated[int | None, typer.Option(metavar="MB", help="Memory it takes.")]
Timeout = Annotated[
    Any,
    typer.Option(parser=arguments.seconds, metavar="TIME", help="Longest run of an attempt: 5m."),
]
Patience = Annotated[
    Any,
    typer.Option(
        "--timeout", parser=arguments.seconds, metavar="TIME", help="Wait no longer: 90, 5m, 2h."
    ),
]
