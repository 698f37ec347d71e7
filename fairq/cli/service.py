"""Commands about the service: workers, types, figures."""

from collections.abc import Iterable

from fairq.cli import options, tables, terminal
from fairq.models import Answer


def workers(*, as_json: options.AsJson = False) -> None:
    """List the workers, of Celery and pulling, and what they run; for operators."""
    with terminal.connected() as client:
        found = client.workers()
    if as_json:
        _print(found)
    else:
        terminal.show(tables.workers_table(found))


def types(*, as_json: options.AsJson = False) -> None:
    """List what can be submitted."""
    with terminal.connected() as client:
        found = client.types()
    if as_json:
        _print(found)
    else:
        terminal.show(tables.types_table(found))


def stats(*, as_json: options.AsJson = False) -> None:
    """Show figures of now and of the last hour: your own, everybody's for operators."""
    with terminal.connected() as client:
        found = client.stats()
    if as_json:
        _print([found])
    else:
        terminal.show(tables.stats_view(found))


def _print(found: Iterable[Answer]) -> None:
    for one in found:
        terminal.print_json(one.as_json())
