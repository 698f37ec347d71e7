"""A wire carries everything until it is told otherwise, and does what it is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.chaos.proxy import Proxy
from tests.services import eventually

LONG = b"x" * 200_000
GONE = (ConnectionError, TimeoutError)


class Echo:
    """A server that says what it hears."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65_536):
                connection.sendall(data)


@pytest.fixture
def wire() -> Iterator[Proxy]:
    echo = Echo()
    with Proxy(f"echo://127.0.0.1:{echo.port}") as proxy:
        yield proxy
    echo.close()


@pytest.fixture
def client(wire: Proxy) -> Iterator[socket.socket]:
    with connect(wire) as connection:
        assert ask(connection, b"hello") == b"hello"
        yield connection


def connect(wire: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=5)


def ask(connection: socket.socket, said: bytes) -> bytes:
    """Say something and return what is heard until it is as long, or the connection ends."""
    connection.sendall(said)
    heard = b""
    while len(heard) < len(said) and (piece := connection.recv(65_536)):
        heard += piece
    return heard


def hears_nothing(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def test_it_carries_what_it_is_given(client: socket.socket) -> None:
    assert ask(client, LONG) == LONG


def test_a_server_has_an_address_at_each_end(wire: Proxy) -> None:
    assert wire.through("redis://:word@127.0.0.1:1234/0") == (
        f"redis://:word@127.0.0.1:{wire.port}/0"
    )


def test_cut_connections_end_and_new_ones_are_served(wire: Proxy, client: socket.socket) -> None:
    wire.cut()

    with pytest.raises(ConnectionError):
        ask(client, LONG)
    with connect(wire) as other:
        assert ask(other, b"hello") == b"hello"


def test_a_slow_wire_delays_both_ways_until_it_is_healed(
    wire: Proxy, client: socket.socket
) -> None:
    wire.slow(1.0)
    client.sendall(b"slow")
    assert hears_nothing(client)
    assert client.recv(100) == b"slow"

    wire.heal()

    assert ask(client, LONG) == LONG


def test_a_halved_message_ends_in_the_middle_and_so_does_its_connection(
    wire: Proxy, client: socket.socket
) -> None:
    wire.halve(1)

    heard = b""
    with suppress(*GONE):
        heard = ask(client, LONG)
    assert heard != LONG
    with connect(wire) as other, suppress(*GONE):
        assert ask(other, LONG) != LONG
    wire.heal()
    with connect(wire) as other:
        assert ask(other, LONG) == LONG


def test_a_silent_wire_holds_back_and_says_it_all_when_healed(
    wire: Proxy, client: socket.socket
) -> None:
    wire.silence()
    client.sendall(b"held")
    with connect(wire) as other:
        other.sendall(b"back")
        assert hears_nothing(client)
        assert hears_nothing(other)

        wire.heal()

        assert client.recv(100) == b"held"
        assert other.recv(100) == b"back"


def test_a_dead_connection_says_nothing_for_ever_and_does_not_end(
    wire: Proxy, client: socket.socket
) -> None:
    wire.deafen()
    client.sendall(b"lost")
    assert hears_nothing(client)

    with connect(wire) as other:
        assert ask(other, b"hello") == b"hello"
    wire.heal()
    assert hears_nothing(client)


def test_a_server_that_is_away_ends_the_connection(wire: Proxy) -> None:
    with Proxy(f"echo://127.0.0.1:{unused_port()}") as to_nobody, connect(to_nobody) as client:
        assert client.recv(1) == b""


def test_a_connection_ends_with_its_client(wire: Proxy) -> None:
    with connect(wire) as client:
        ask(client, b"hello")
        assert wire.connections == 1

    eventually(lambda: wire.connections == 0)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
