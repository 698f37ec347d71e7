"""A server double, and both clients behind one face."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fairq import AsyncClient, Client
from tests.fairq.double import Double

TOKEN = "fq_secret"


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as double:
        yield double


class Driven:
    """An ``AsyncClient`` whose methods can be called from a test that is no coroutine."""

    def __init__(self, runner: asyncio.Runner, inner: Any) -> None:
        self._runner = runner
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._wrapped(value) if inspect.ismethod(value) else value

    def _wrapped(self, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            return self._settled(method(*arguments, **options))

        return call

    def _settled(self, made: Any) -> Any:
        if inspect.isawaitable(made):
            return self._runner.run(_awaited(made))
        if hasattr(made, "__anext__"):
            return self._items(made)
        return Driven(self._runner, made) if hasattr(made, "submit") else made

    def _items(self, made: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self._runner.run(_awaited(anext(made)))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._runner.run(made.aclose())  # type: ignore[attr-defined]


async def _awaited(made: Any) -> Any:
    return await made


@pytest.fixture(params=["plain", "asyncio"])
def client(request: pytest.FixtureRequest, double: Double) -> Iterator[Any]:
    """Both clients, one after the other, called alike."""
    options: dict[str, Any] = {"patience_seconds": 10}
    if request.param == "plain":
        with Client(double.url, TOKEN, **options) as plain:
            yield plain
        return
    with asyncio.Runner() as runner:
        driven = Driven(runner, AsyncClient(double.url, TOKEN, **options))
        yield driven
        driven.close()
