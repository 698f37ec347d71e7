"""A wire between clients and one server that can be cut, slowed, silenced and broken in the middle.

It speaks no protocol: bytes in, bytes out. All of it happens in one thread of its own; whoever
uses it may be in any other.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

_CHUNK = 65_536
_AT_ONCE = struct.pack("ii", 1, 0)  # closing sends a reset, and what was not sent is lost
_HALVED_AFTER = (1, 4_000)
"""How many bytes a connection carries before it breaks in the middle, at least and at most."""


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers
        self.budget: int | None = None
        self.is_deaf = False

    def passes(self, wanted: int) -> int:
        """Return how many of *wanted* bytes this connection still carries."""
        if self.budget is None:
            return wanted
        allowed = min(wanted, self.budget)
        self.budget -= allowed
        return allowed

    def reset(self) -> None:
        for writer in self.writers:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE
                )
            writer.transport.abort()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class Proxy:
    """Listens on a port of its own and passes everything on to the server at an address."""

    def __init__(self, url: str) -> None:
        self._target = _port_of(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[_Link] = set()
        self._delay = 0.0
        self._halving: Random | None = None
        self._speaks = asyncio.Event()
        self._speaks.set()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def through(self, url: str) -> str:
        """Return an address of the server as it is at this end of the wire."""
        return url.replace(f":{_port_of(url)}", f":{self.port}")

    # What may happen to it

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        self._do(self._reset_all)

    def slow(self, seconds: float) -> None:
        """Let every piece wait for so long, on its way there and on its way back."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def halve(self, seed: int) -> None:
        """Let connections, new ones too, break in the middle of what they carry."""
        self._do(lambda: self._halve(Random(seed)))  # noqa: S311 - makes trouble, hides nothing

    def silence(self) -> None:
        """Hold everything back until healed; new connections are accepted and hear nothing."""
        self._do(self._speaks.clear)

    def deafen(self) -> None:
        """Let the connections there are carry nothing, for ever, and not end; new ones are fine."""
        self._do(self._deafen)

    def heal(self) -> None:
        """Be a wire again. What was held back arrives now."""
        self._do(self._heal)

    @property
    def connections(self) -> int:
        return len(self._links)

    def _do(self, act: Callable[[], None]) -> None:
        async def there() -> None:
            act()

        asyncio.run_coroutine_threadsafe(there(), self._loop).result()

    def _reset_all(self) -> None:
        for link in self._links:
            link.reset()

    def _halve(self, chance: Random) -> None:
        self._halving = chance
        for link in self._links:
            link.budget = chance.randint(*_HALVED_AFTER)

    def _deafen(self) -> None:
        for link in self._links:
            link.is_deaf = True

    def _heal(self) -> None:
        self._delay, self._halving = 0.0, None
        for link in self._links:
            link.budget = None
        self._speaks.set()

    # Carrying

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        link = _Link(writer, there[1])
        if self._halving is not None:
            link.budget = self._halving.randint(*_HALVED_AFTER)
        self._links.add(link)
        pumps = [self._pump(link, reader, there[1]), self._pump(link, there[0], writer)]
        try:
            await self._first_of(pumps)
        finally:
            self._links.discard(link)
            link.close()

    async def _first_of(self, pumps: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Carry both ways until one side is over: then the connection is."""
        running = [asyncio.create_task(pump) for pump in pumps]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in running:
                pump.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(_CHUNK):
                await self._speaks.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if link.is_deaf:
                    continue
                passed = link.passes(len(piece))
                writer.write(piece[:passed])
                await writer.drain()
                if passed < len(piece):
                    link.reset()
                    return

    async def _end(self) -> None:
        """Close everything; each connection's task ends with it."""
        self._server.close()
        self._heal()
        while self._links:
            self._reset_all()
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise ValueError(f"no port in {url}")
    return port
