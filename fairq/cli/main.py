"""The command line as a whole: every command, and what becomes of errors."""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fairq import http
from fairq.cli import dead, ending, jobs, schedules, service, signing_in, terminal
from fairq.cli.bulk import bulk
from fairq.cli.ending import Exit
from fairq.cli.top import top


class _Commands(TyperGroup):
    """Gives what is broken off exit codes of its own; Typer's is that of a job that failed."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except typer.Abort as no:
            terminal.say("fairq: broken off")
            raise typer.Exit(Exit.INTERRUPTED) from no
        except BrokenPipeError as closed:
            terminal.hang_up()
            raise typer.Exit(Exit.BROKEN) from closed


app = typer.Typer(
    name="fairq",
    cls=_Commands,
    help="Submit jobs to a Fairq server, follow them, and see why they wait.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        terminal.print_line(http.version())
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take what goes before a command."""


_COMMANDS: Mapping[str, Callable[..., None]] = {
    "login": signing_in.login,
    "logout": signing_in.logout,
    "submit": jobs.submit,
    "submit-file": jobs.submit_file,
    "ls": jobs.ls,
    "show": jobs.show,
    "logs": jobs.logs,
    "wait": jobs.wait,
    "cancel": jobs.cancel,
    "retry": jobs.retry,
    "bulk": bulk,
    "top": top,
    "stats": service.stats,
    "types": service.types,
    "workers": service.workers,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(dead.app, name="dead")
app.add_typer(schedules.app, name="schedules")


def main() -> None:
    """Run the command that was typed; an error ends it with one line and an exit code."""
    try:
        app(prog_name="fairq")
    except Exception as error:  # noqa: BLE001 - Python's exit code is that of a job that failed
        terminal.say(f"fairq: {ending.explanation(error)}")
        sys.exit(ending.exit_code(error))
