import socket
import threading
import time
from collections.abc import Iterator

import pytest

from simulation.chaos.proxy import Line, Proxy

SHORT_S = 0.3


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(65536):
                    connection.sendall(piece)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    made = Proxy(echo)
    yield made
    made.close()


def _connected(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=10.0)
    connection.sendall(b"before")
    assert connection.recv(100) == b"before"
    return connection


def test_bytes_come_back_as_they_went(proxy: Proxy) -> None:
    content = bytes(range(256)) * 1000
    with _connected(proxy) as connection:
        connection.sendall(content)
        found = b""
        while len(found) < len(content):
            found += connection.recv(65536)
    assert found == content


def test_a_cut_holds_bytes_back_and_a_heal_delivers_them(proxy: Proxy) -> None:
    with _connected(proxy) as connection:
        proxy.cut()
        connection.settimeout(SHORT_S)
        connection.sendall(b"held")
        with pytest.raises(TimeoutError):
            connection.recv(100)
        connection.settimeout(10.0)
        proxy.heal()
        assert connection.recv(100) == b"held"


def test_nobody_gets_through_a_cut_who_comes_anew(proxy: Proxy) -> None:
    proxy.cut()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10.0) as connection:
        connection.sendall(b"new")
        connection.settimeout(SHORT_S)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        proxy.heal()
        connection.settimeout(10.0)
        assert connection.recv(100) == b"new"


def test_a_slow_line_takes_its_time(proxy: Proxy) -> None:
    with _connected(proxy) as connection:
        proxy.set(Line(delay_s=SHORT_S))
        began = time.monotonic()
        connection.sendall(b"slow")
        assert connection.recv(100) == b"slow"
    assert time.monotonic() - began >= 2 * SHORT_S


def test_a_reset_breaks_an_open_connection(proxy: Proxy) -> None:
    with _connected(proxy) as connection:
        proxy.reset()
        assert connection.recv(100) == b""


def test_where_nobody_listens_the_connection_is_broken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = Proxy(port)
    try:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10.0) as connection:
            assert connection.recv(100) == b""
    finally:
        proxy.close()
