"""One server for all Python tests, and clients that are closed after each of them."""

import itertools
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import auth_endpoint  # noqa: E402: found through the line above
from server import Server  # noqa: E402
from subscriber import Subscriber  # noqa: E402

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def library(server):
    return server.library()


@pytest.fixture(scope="session")
def endpoint(server):
    running = auth_endpoint.start(server.library())
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def connect(server):
    """Connects a Pysher client; its arguments are those of `Subscriber`."""
    opened = []

    def open_one(**options):
        opened.append(Subscriber(server, **options))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def unique():
    """A name that no other test uses."""
    return lambda name: f"{name}-{next(numbers)}"
