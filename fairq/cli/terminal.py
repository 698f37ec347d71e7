"""What is printed where: results on stdout, everything said about them on stderr."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from fairq import retrying
from fairq.client import Client
from fairq.errors import FairqError

_PIPE_WIDTH = 250  # into a pipe nothing is cut off to fit a screen
_PATIENCE_SECONDS = 10.0


@contextmanager
def connected() -> Iterator[Client]:
    """Give a client of whoever is signed in, with the patience of somebody who looks on."""
    with Client(patience_seconds=_PATIENCE_SECONDS) as client:
        yield client


def show(*what: RenderableType) -> None:
    """Print a result for people."""
    _results().print(*what)


def print_line(text: str) -> None:
    """Print one line of a result, at once."""
    print(text, flush=True)  # noqa: T201 - this is where it is printed


def print_json(value: Any) -> None:
    """Print a result for programs: one line each."""
    print_line(json.dumps(value, ensure_ascii=False))


def say(text: str) -> None:
    """Say something about what happens."""
    _messages().print(plain(text), soft_wrap=True)


def plain(text: object) -> Text:
    """Return *text* as it is: no markup, and nothing that would drive a terminal.

    What jobs say is written by others.
    """
    return Text(
        "".join(one if one.isprintable() or one in "\n\t\xa0" else "�" for one in str(text))
    )


@contextmanager
def progress(doing: str, total: float | None) -> Iterator[Callable[[float, str], None]]:
    """Show how far something is; give the function that is told how far, and a word about it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    console = _messages()
    bar = Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(doing, total=total)

        def advance(done: float, word: str) -> None:
            bar.update(task, completed=done, description=word)

        yield advance


def is_screen() -> bool:
    """Tell whether somebody looks at what is printed."""
    return _results().is_terminal


def watch(draw: Callable[[], RenderableType], every_seconds: float) -> None:
    """Draw again and again until Ctrl-C; a server that is away does not end it."""
    with Live(console=_results(), auto_refresh=False) as live:
        frame: RenderableType = ""
        while True:
            frame, note = _drawn(draw, frame)
            live.update(Group(frame, note), refresh=True)
            pause(every_seconds)


def watch_json(look: Callable[[], Any], every_seconds: float) -> None:
    """Print again and again until Ctrl-C; a server that is away does not end it."""
    while True:
        try:
            print_json(look())
        except FairqError as error:
            if not retrying.is_passing(error):
                raise
            say(f"waiting for the server: {error}")
        pause(every_seconds)


def pause(seconds: float) -> None:
    """Do nothing for so long."""
    threading.Event().wait(seconds)


def hang_up() -> None:
    """Let all further results go nowhere, the interpreter's last ones included."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_stdin() -> str:
    """Return what is piped in."""
    return sys.stdin.read()


def read_line() -> str:
    """Return what is typed, or the next line of what is piped in."""
    return sys.stdin.readline().strip()


def _drawn(
    draw: Callable[[], RenderableType], last: RenderableType
) -> tuple[RenderableType, RenderableType]:
    try:
        return draw(), ""
    except FairqError as error:
        if not retrying.is_passing(error):
            raise
        return last, plain(f"waiting for the server: {error}")


class _Results(Console):
    """Leaves it to the command what becomes of it when nobody reads its results any more."""

    def on_broken_pipe(self) -> None:
        """Let the error pass that is being handled."""
        raise  # noqa: PLE0704 - rich calls this where it has caught one


def _results() -> Console:
    console = _Results(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def _messages() -> Console:
    return Console(stderr=True, highlight=False)
