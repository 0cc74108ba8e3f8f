# Copyright txconnpool contributors. See LICENSE.
"""
Tests for dumps of keys with real memcacheds, and with memcached's own tool.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import PATIENCE, Address, Memcached, Proxy, ask, connect, exchange, missing, shared, until

#: Where Debian has memcached's tool, a program in Perl.
TOOL = Path("/usr/share/memcached/scripts/memcached-tool")

KEYS = [b"key:%d" % number for number in range(40)] + [b"\xc3\xa9%&=", b"big"]

#: Requests whose replies do not depend on the time, and their last bytes.
DUMPS = {
    b"lru_crawler metadump all\r\n": b"END\r\n",
    b"lru_crawler metadump hash\r\n": b"END\r\n",
    b"lru_crawler metadump 1\r\n": b"END\r\n",
    b"lru_crawler metadump 1,2\r\n": b"END\r\n",
    b"lru_crawler metadump 99\r\n": b"\r\n",
    b"lru_crawler metadump x\r\n": b"\r\n",
    b"lru_crawler metadump\r\n": b"\r\n",
    b"lru_crawler metadump 1 2\r\n": b"\r\n",
    b"lru_crawler mgdump all\r\n": b"\r\n",
    b"stats cachedump 1 0\r\n": b"END\r\n",
    b"stats cachedump 1 3\r\n": b"END\r\n",
    b"stats cachedump 1 3 4\r\n": b"END\r\n",
    b"stats cachedump 63 0\r\n": b"END\r\n",
    b"stats cachedump\r\n": b"\r\n",
    b"stats cachedump 1\r\n": b"\r\n",
    b"stats cachedump 99 1\r\n": b"\r\n",
    b"stats cachedump x 1\r\n": b"\r\n",
    b"stats cachedump 1 x\r\n": b"\r\n",
}


#: A whole line of C{lru_crawler metadump}.
DUMPED = re.compile(rb"key=\S+ exp=-?\d+ la=\d+ cas=\d+ fetch=(yes|no) cls=\d+ size=\d+( flags=\d+)?\s*").fullmatch


def dump(address: Address, request: bytes, end: bytes) -> list[bytes]:
    """
    @return: the lines of the reply, in an order of their own. The server may be busy with another dump.
    """
    replies: list[bytes] = []

    def isReply() -> bool:
        replies.append(ask(address, request, end))
        return not replies[-1].startswith(b"BUSY")

    until(isReply, what="a server that is not busy")
    return sorted(replies[-1].split(b"\n"))


@contextmanager
def running() -> Iterator[tuple[list[Memcached], Proxy, Proxy]]:
    """
    Run two servers, a proxy of the first, and a proxy that stores values on both. This one also allows
    C{cache_memlimit}.
    """
    every = "@read @write @delete @admin cache_memlimit"
    servers = [Memcached(), Memcached()]
    with servers[0], servers[1]:
        one = Proxy(upstream=[servers[0].address])
        both = Proxy("--allow-commands", every, upstream=[server.address for server in servers])
        with one, both:
            yield servers, one, both


class DumpTests(SynchronousTestCase):
    """
    Tests for one and for two servers.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Store some values on the servers, which are those of all tests.
        """
        self.servers, self.one, self.both = shared(self, running)
        for key in KEYS:
            value = b"x" * (3 if key != b"big" else 50000)
            request = b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value)
            until(partial(self.isStored, request), what="a server for the key")

    def isStored(self, request: bytes) -> bool:
        """
        @return: whether a request has stored a value.
        """
        return ask(self.both.address, request) == b"STORED\r\n"

    def test_same(self) -> None:
        """
        With one server the client gets the reply of the server. With two it gets the lines of both.
        """
        for request, end in DUMPS.items():
            (first, second), one, both = self.dumps(request, end)
            self.assertEqual(one, first, request)
            if end == b"END\r\n":
                first = sorted(first + [line for line in second if line not in (b"", b"END\r")])
            self.assertEqual(both, first, request)

    def dumps(self, request: bytes, end: bytes) -> tuple[list[list[bytes]], list[bytes], list[bytes]]:
        """
        @return: the lines of each server, and those from the proxy of one and of both. The servers have the same lines
            before and after: memcached moves new values from list to list, and C{stats cachedump} shows one of these.
        """
        taken: list[tuple[list[list[bytes]], list[bytes], list[bytes]]] = []

        def isSteady() -> bool:
            before = self.direct(request, end)
            taken.append((before, dump(self.one.address, request, end), dump(self.both.address, request, end)))
            return before == self.direct(request, end)

        until(isSteady, what="the same dump twice")
        return taken[-1]

    def direct(self, request: bytes, end: bytes) -> list[list[bytes]]:
        """
        @return: the lines of each server.
        """
        return [dump(server.address, request, end) for server in self.servers]

    def test_tool(self) -> None:
        """
        C{memcached-tool} prints all keys, and dumps all values.
        """
        if not TOOL.exists():
            self.skipTest("memcached-tool is not installed")
        assert isinstance(self.both.address, tuple)
        where = "{}:{}".format(*self.both.address)
        dumped = subprocess.run([TOOL, where, "dump"], capture_output=True, check=True, timeout=PATIENCE).stdout
        added = {line.split(b" ")[1] for line in dumped.split(b"\r\n") if line.startswith(b"add ")}
        self.assertEqual(added, set(KEYS))

    def test_large(self) -> None:
        """
        A client that does not read its dump delays no other. Then it gets everything that the server sends, which may
        miss a value that memcached moves from list to list meanwhile.
        """
        size, count = 1000, 40000
        with connect(self.servers[0].address) as line:
            for start in range(0, count, size):
                many = b"".join(
                    b"set %d:%b 0 0 1 noreply\r\nx\r\n" % (each, b"k" * 200) for each in range(start, start + size)
                )
                line.sendall(many)
            exchange(line, b"mn\r\n", b"MN\r\n")
        with connect(self.one.address) as slow, connect(self.one.address) as other:
            slow.sendall(b"lru_crawler metadump all\r\nmn\r\n")
            begin = slow.recv(1000)
            self.assertTrue(begin.startswith(b"key="), begin[:100])
            for _ in range(100):
                self.assertEqual(exchange(other, b"get key:none\r\n", b"END\r\n"), b"END\r\n")
            whole = begin + exchange(slow, b"", b"MN\r\n")
        self.assertTrue(whole.endswith(b"\nEND\r\nMN\r\n"))
        lines = whole.split(b"\n")[:-3]
        self.assertEqual([line for line in lines if not DUMPED(line)], [])
        self.addCleanup(ask, self.servers[0].address, b"flush_all\r\n")
        expected = {b"key=%d%%3A%b" % (each, b"k" * 200) for each in range(count)}
        lacking = expected.difference(line.split(b" ")[0] for line in lines)
        self.assertLess(len(lacking), count // 100)

    def test_failed(self) -> None:
        """
        If a server is down, the reply ends with an error, and the client does not wait for more.
        """
        self.addCleanup(self.servers[1].restart)
        self.servers[1].kill()
        reply = ask(self.both.address, b"lru_crawler metadump all\r\n", b"no such end")
        self.assertRegex(reply, rb"\A(?:key=[^\n]*\n)*SERVER_ERROR upstream unavailable: [^\r\n]*\r\n\Z")
        self.assertIn(b"key=", reply)

    def test_memlimit(self) -> None:
        """
        C{cache_memlimit} is sent to all servers if it is allowed by name.
        """
        refusal = b"CLIENT_ERROR cache_memlimit not allowed\r\n"
        self.assertEqual(ask(self.one.address, b"cache_memlimit 100\r\n"), refusal)
        for request in (b"cache_memlimit 100\r\n", b"cache_memlimit 1\r\n", b"cache_memlimit x\r\n"):
            self.assertEqual(ask(self.both.address, request), ask(self.servers[0].address, request))
        for server in self.servers:
            self.assertIn(b"STAT limit_maxbytes 104857600\r\n", ask(server.address, b"stats\r\n", b"END\r\n"))
