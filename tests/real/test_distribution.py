# -*- test-case-name: tests.real.test_distribution -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the running proxy sends keys to the same servers as the running clients and proxies of others do: with all
vectors, in front of servers that reply with their number.
"""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import PATIENCE, Twistd, connect, raiseFileLimit
from tests.routing.distribution import test_vectors
from tests.routing.vectordata import Case
from txconnpool.routing.distribution import Distribution, KeyMap, ServerSpec

#: The address of servers that are down: nothing listens there.
NOBODY = "tcp:127.0.9.%d:9"

_REPLY = re.compile(rb"VALUE ([^ ]+) 0 [0-9]+\r\n([0-9]+)\r\nEND\r\n|END\r\n|([A-Z]+_ERROR [^\r\n]*)\r\n")


@dataclass(frozen=True)
class Vector:
    """
    A case, and the distribution that must be the same.

    @ivar servers: the servers.
    @ivar keys: the keys as the client sent them.
    """

    case: Case
    distribution: Distribution
    servers: tuple[ServerSpec, ...]
    keys: tuple[bytes, ...]

    @property
    def identity(self) -> tuple[object, ...]:
        """
        Equal for vectors that are the same test. Of pools of a hundred servers there is one for each distribution.
        """
        few = len(self.servers) < 20
        name: object = self.distribution if few else self.distribution.name
        return name, self.servers[0].address, few and self.servers, tuple(self.case.down), few and self.keys

    @property
    def lines(self) -> list[str]:
        """
        The lines of the ini file for the pool.
        """
        distribution = self.distribution
        lines = [f"distribution = {distribution.name}"]
        if self.case.down:
            lines.append("on-failure = rehash")
        if distribution.hash and distribution.scheme.hashes:
            lines.append(f"hash = {distribution.hash}")
        for name, text in (("hash-tag", distribution.hashTag), ("hash-stop", distribution.hashStop)):
            if text:
                lines.append(f"{name} = {text.decode()}")
        lines.append("upstream =")
        labels = distribution.labels(self.servers)
        for number, (server, label) in enumerate(zip(self.servers, labels, strict=True)):
            down = number in self.case.down
            line = NOBODY % (number + 1) if down else f"tcp:{server.host}:{server.port}"
            if server.weight is not None:
                line += f" weight={server.weight:g}"
            if server.label or (down and not distribution.positional):
                line += f" label={label}"
            lines.append(f"    {line}")
        return lines


def vectors() -> list[Vector]:
    """
    @return: the vectors that the tests of the maps use, whose servers have addresses of this machine.
    """
    found: dict[tuple[object, ...], Vector] = {}

    class Collector(test_vectors.VectorTests):
        """
        Collects the cases instead of comparing them.
        """

        def compare(
            self,
            case: Case,
            distribution: Distribution,
            weights: bool | Iterable[float] = True,
            wire: Callable[[str], bytes] = test_vectors.encoded,
        ) -> KeyMap:
            given = weights if isinstance(weights, bool) else list(weights)
            servers = tuple(test_vectors.specs(case, given))
            if all((server.host or "").startswith("127.") for server in servers) and not distribution.hashSalt:
                vector = Vector(case, distribution, servers, tuple(map(wire, case.keys)))
                found.setdefault(vector.identity, vector)
            return distribution.build(servers, case.down)

    for name in dir(Collector):
        if name.startswith("test_"):
            getattr(Collector(name), name)()
    return list(found.values())


class Numbered(asyncio.Protocol):
    """
    A connection to a server that replies to each get with the number of the server.
    """

    def __init__(self, number: int) -> None:
        self._number = b"%d" % number
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """
        Reply to all complete requests.
        """
        *lines, self._data = (self._data + data).split(b"\r\n")
        self._transport.write(b"".join(map(self._reply, lines)))

    def _reply(self, line: bytes) -> bytes:
        word, *keys = line.split(b" ")
        if word == b"version":
            return b"VERSION 1.6.18\r\n"
        number = self._number
        return b"".join(b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(number), number) for key in keys) + b"END\r\n"


class NumberedServers(threading.Thread):
    """
    A server for each address, all in one thread.
    """

    def __init__(self, addresses: Iterable[tuple[str, int]]) -> None:
        """
        @raise OSError: an address is in use.
        """
        super().__init__(daemon=True)
        self.numbers = {address: number for number, address in enumerate(addresses)}
        self._sockets: list[socket.socket] = []
        try:
            for address in self.numbers:
                self._sockets.append(socket.create_server(address, backlog=1024))
        except OSError:
            self._close()
            raise
        self._loop = asyncio.new_event_loop()

    def _close(self) -> None:
        for each in self._sockets:
            each.close()

    def run(self) -> None:
        """
        Serve until L{stop}.
        """
        loop = self._loop
        for number, listening in enumerate(self._sockets):
            loop.run_until_complete(loop.create_server(partial(Numbered, number), sock=listening))
        loop.run_forever()
        loop.close()

    def stop(self) -> None:
        """
        End the thread.
        """
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join()
        self._close()


class DistributionTests(SynchronousTestCase):
    """
    Tests with one proxy that has a pool for each vector.
    """

    def setUp(self) -> None:
        """
        Start the servers, and the proxy.
        """
        raiseFileLimit()
        self.vectors = vectors()
        addresses = {(str(each.host), int(each.port or 0)) for vector in self.vectors for each in vector.servers}
        try:
            self.servers = NumberedServers(sorted(addresses))
        except OSError as error:
            raise SkipTest(f"an address of the vectors is in use: {error}") from error
        self.servers.start()
        self.addCleanup(self.servers.stop)
        directory = tempfile.TemporaryDirectory(prefix="connpool-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        ini = self.directory / "connpool.ini"
        # All connections are made at the same time, which takes seconds.
        shared = [
            "[connpool]",
            "connect-timeout = 60",
            "wait-timeout = 60",
            "request-timeout = 60",
            "eject-after = 1",
            "min-live-servers = 1",
        ]
        pools = [
            line
            for number, vector in enumerate(self.vectors)
            for line in ("", f"[pool:p{number}]", f"listen = unix:{self.path(number)}", *vector.lines)
        ]
        ini.write_text("\n".join([*shared, *pools, ""]), "utf-8")
        self.proxy = Twistd("--config", str(ini), plugin="connpool", address=self.path(0)).start()
        self.addCleanup(self.proxy.stop)

    def path(self, number: int) -> str:
        """
        @return: the address of the pool of a vector.
        """
        return str(self.directory / f"{number}.sock")

    def found(self, number: int, keys: Iterable[bytes]) -> dict[bytes, int | None]:
        """
        Request keys of a pool.

        @return: the index of the server of each key; C{None} if its request has failed.
        """
        vector = self.vectors[number]
        indexes = {self.servers.numbers[str(each.host), int(each.port or 0)]: at
                   for at, each in enumerate(vector.servers)}  # fmt: skip
        found: dict[bytes, int | None] = {}
        with closing(connect(self.path(number), 4 * PATIENCE)) as client:
            client.sendall(b"".join(b"get %b\r\n" % key for key in keys))
            data, pos = b"", 0
            for key in keys:
                while (match := _REPLY.match(data, pos)) is None:
                    more = client.recv(1 << 16)
                    self.assertNotEqual(more, b"", data[pos:])
                    data += more
                pos = match.end()
                self.assertIn(match[1], (key, None))
                found[key] = None if match[2] is None else indexes[int(match[2])]
            self.assertEqual(data[pos:], b"")
        return found

    def expected(self, vector: Vector) -> dict[bytes, int | None]:
        """
        @return: the index of the server of each third key; C{None} if it is down, or if there is none.
        """
        down = {-1, *vector.case.down}
        # A part of them, since the tests of the maps use all.
        some = list(zip(vector.keys, vector.case.to, strict=True))[::3]
        return {
            key: None if index in down else index
            for key, index in some
            if len(key) <= 250 and not set(key) & set(b" \n\0\r")
        }

    def test_vectors(self) -> None:
        """
        Keys are found at the server where the other system has it, also if servers are down.
        """
        names = {vector.distribution.name for vector in self.vectors}
        self.assertGreater(len(names), 20)
        self.assertGreater(sum(bool(vector.case.down) for vector in self.vectors), 50)
        for number, vector in enumerate(self.vectors):
            expected = self.expected(vector)
            self.assertGreater(len(expected), 80)
            # Until the proxy has noticed which servers are down.
            deadline = time.monotonic() + 4 * PATIENCE
            while (found := self.found(number, expected)) != expected and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(found, expected, f"{vector.distribution} {vector.case}")
