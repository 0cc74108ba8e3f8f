# -*- test-case-name: tests.proxy.test_resending -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.resending}: requests of clients of Redis that a server has not executed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pipes import Endpoint, Pipe
from tests.stage import Stage, assertClosed, assertTidy
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.engine import LOOK
from txconnpool.pool.handshake import Handshake
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import Scanner, encode, wordsOf

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
READ_ONLY = b"-READONLY You can't write against a read only replica.\r\n"
MASTER_DOWN = b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n"
OK = b"+OK\r\n"


def request(text: str) -> bytes:
    """
    @return: the bytes of a request with these words.
    """
    return encode(text.encode().split(b" "))


class RedisLine(Pipe):
    """
    A connection to a server, which replies only to the handshake by itself.

    @ivar asked: the words of all other requests, as one text each.
    @ivar seen: how many of them the test has looked at.
    @ivar answered: how many of them have a reply.
    """

    #: The reply to C{PING}.
    pong = b"+PONG\r\n"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.asked: list[str] = []
        self.seen = self.answered = 0

    def look(self) -> None:
        """
        Read the received requests.
        """
        data, pos = self.take(), 0
        while pos < len(data):
            end = Scanner(1 << 20, False).scan(data, pos)
            words = b" ".join(wordsOf(data, pos)).decode()
            pos = end
            if words == "PING":
                self.send(self.pong)
            elif words == "INFO server":
                self.send(b"$-1\r\n")
            else:
                self.asked.append(words)


class RedisEndpoint(Endpoint[RedisLine]):
    """
    A server.

    @ivar pong: the reply to C{PING}.
    """

    kind = RedisLine
    pong = b"+PONG\r\n"

    def _connected(self, factory: Any) -> Any:
        protocol = super()._connected(factory)
        self.lines[-1].pong = self.pong
        return protocol


class RedisStage(Stage):
    """
    A pool of Redis servers in memory, whose replies the test sends.

    @ivar looks: how often the servers were to be looked up again.
    """

    looks = 0

    def __init__(self, servers: int = 1, **options: Any) -> None:
        super().__init__(servers, start=False, **options)
        self.pool.start()
        self.look()

    def _pool(self, servers: Any, factory: ConnectionFactory, limits: Any, **options: Any) -> Any:
        self.dialect: Any = Redis()
        self.servers: Any = [RedisEndpoint(self.clock, server.name) for server in servers]
        factory.dialect, factory.commands = self.dialect, self.dialect.commands
        self._greeting = Handshake("pool", self.dialect)
        return super()._pool(self.servers, factory, limits, lookAgain=self._looked, **options)

    def _looked(self) -> None:
        self.looks += 1

    def _handshake(self, connection: Any) -> Any:
        return self._greeting(connection)

    def look(self) -> None:
        """
        Let the servers read, and answer handshakes.
        """
        for _ in range(5):
            self.turns()
            for line in self.redisLines:
                if line.connected:
                    line.look()

    def asked(self) -> list[str]:
        """
        @return: the requests that were not looked at yet.
        """
        self.look()
        found = []
        for line in self.redisLines:
            found += line.asked[line.seen :]
            line.seen = len(line.asked)
        return found

    @property
    def redisLines(self) -> list[RedisLine]:
        """
        All connections so far.
        """
        lines: Any = self.lines
        return list(lines)

    def reply(self, *replies: bytes) -> None:
        """
        Send replies on the connection that has requests without one.
        """
        self.look()
        (line,) = (each for each in self.redisLines if each.connected and each.answered < len(each.asked))
        line.answered += len(replies)
        line.send(b"".join(replies))
        self.look()


class ResendingTests(SynchronousTestCase):
    """
    Tests for requests of one client to one server.
    """

    def setUp(self) -> None:
        """
        Connect a client.
        """
        self.stage = RedisStage(maximum=2, waitTimeout=3.0, whenDown=None)
        self.clock = self.stage.clock
        self.one = self.stage.client()

    def send(self, *texts: str) -> None:
        """
        Send requests of the client.
        """
        self.one.send(b"".join(map(request, texts)))
        self.stage.look()

    def tearDown(self) -> None:
        """
        Close the client and the pool.
        """
        self.one.end()
        self.stage.look()
        assertTidy(self, self.stage.pool)
        assertClosed(self, self.stage)

    def test_loading(self) -> None:
        """
        The request is sent again, on a connection that is dialed with back-off and whose handshake finds that the
        server is ready. The client does not notice.
        """
        for text in ("SET k 1", "GET k"):
            self.send(text)
            self.assertEqual(self.stage.asked(), [text])
            self.stage.servers[0].pong = LOADING
            self.stage.reply(LOADING)
            self.assertEqual(self.stage.asked(), [])
            self.clock.advance(0.3)
            self.stage.look()
            self.assertEqual(self.stage.asked(), [], "the server is still loading")
            self.assertEqual(self.stage.pool.servers[0].reason, LOADING.decode().strip().lstrip("-"))
            self.stage.servers[0].pong = b"+PONG\r\n"
            self.clock.advance(2.0)
            self.assertEqual(self.stage.asked(), [text])
            self.stage.reply(OK)
            self.assertEqual(self.one.take(), OK)
        self.assertEqual(self.stage.pool.counters.retries, 2)

    def test_onlyOnce(self) -> None:
        """
        A request that is declined twice is not sent a third time.
        """
        self.send("GET k")
        self.stage.asked()
        self.stage.reply(MASTER_DOWN)
        self.clock.advance(2.0)
        self.assertEqual(self.stage.asked(), ["GET k"])
        self.stage.reply(MASTER_DOWN)
        self.assertEqual(self.one.take(), MASTER_DOWN)

    def test_noOther(self) -> None:
        """
        A client gets the reply of the server if there is no connection in time, and can go on.
        """
        self.send("GET k")
        self.stage.servers[0].mode = "refuse"
        self.stage.reply(LOADING)
        self.clock.pump([0.5] * 8)
        self.assertEqual(self.one.take(), LOADING)
        self.stage.servers[0].mode = "accept"
        self.stage.asked()
        self.send("GET l")
        self.clock.advance(2.5)
        self.assertEqual(self.stage.asked(), ["GET l"])
        self.stage.reply(OK)
        self.assertEqual(self.one.take(), OK)

    @covers("R4")
    def test_pipeline(self) -> None:
        """
        If all requests of a pipeline are declined, all are sent again, in their order. Requests that the client sends
        meanwhile come after them.
        """
        self.widen()
        self.send("SET k 1", "GET k", "SET k 2")
        self.assertEqual(self.stage.asked(), ["SET k 1", "GET k", "SET k 2"])
        self.stage.reply(LOADING)
        self.send("GET k")
        self.stage.reply(LOADING, LOADING)
        self.clock.advance(2.0)
        self.assertEqual(self.stage.asked(), ["SET k 1", "GET k", "SET k 2", "GET k"])
        self.stage.reply(OK, b"$1\r\n1\r\n", OK)
        self.stage.reply(b"$1\r\n2\r\n")
        self.assertEqual(self.one.take(), OK + b"$1\r\n1\r\n" + OK + b"$1\r\n2\r\n")

    def widen(self) -> None:
        """
        Let the client have several requests in flight.
        """
        for _ in range(3):
            self.send("GET a", "GET b")
            self.stage.reply(OK, OK)
        self.stage.asked()
        self.one.take()

    @covers("R35")
    def test_order(self) -> None:
        """
        If a later request was executed, none is sent again, because their order would change. The client gets all
        replies.
        """
        self.widen()
        self.send("SET k 1", "GET k", "SET k 2", "GET k")
        self.stage.reply(LOADING, LOADING)
        self.assertEqual(self.one.take(), b"")
        self.stage.reply(OK, LOADING)
        self.assertEqual(self.one.take(), LOADING + LOADING + OK + LOADING)
        self.assertEqual(self.stage.pool.counters.retries, 0)

    def test_lost(self) -> None:
        """
        If the connection is lost before all replies are known, what was declined is not sent again: a later request may
        have been executed.
        """
        self.widen()
        self.send("SET k 1", "SET k 2", "GET k")
        self.stage.reply(LOADING)
        self.stage.asked()
        self.stage.lines[0].lose()
        self.clock.advance(2.0)
        self.assertEqual(self.stage.asked(), ["GET k"])
        self.stage.reply(OK)
        self.assertEqual(self.one.take(), LOADING + b"-ERR upstream connection lost (server0)\r\n" + OK)

    @covers("R23")
    def test_gone(self) -> None:
        """
        What is declined after its client has gone is dropped.
        """
        self.widen()
        self.send("SET k 1", "SET k 2")
        self.stage.reply(LOADING)
        self.one.lose()
        self.stage.look()
        self.stage.reply(LOADING)
        self.clock.advance(2.0)
        self.assertEqual(self.stage.asked(), ["SET k 1", "SET k 2"])

    def test_script(self) -> None:
        """
        What a script returns is data, whatever it looks like: nothing is sent again or dialed.
        """
        for text in ("EVAL x 0", "EVALSHA x 0", "FCALL x 0", "EVAL_RO x 0", "FCALL_RO x 0"):
            self.send(text)
            self.stage.reply(LOADING)
            self.assertEqual(self.one.take(), LOADING)
        self.clock.advance(LOOK)
        self.send("EVAL x 0")
        self.stage.reply(READ_ONLY)
        self.assertEqual(self.one.take(), READ_ONLY)
        self.assertEqual((len(self.stage.lines), self.stage.pool.counters.retries), (1, 0))

    @covers("R20")
    def test_handshake(self) -> None:
        """
        A server that answers the handshake with an error is not used, but dialed again and again.
        """
        self.stage.lines[0].lose()
        self.stage.servers[0].pong = LOADING
        self.wait()
        self.assertGreater(self.stage.looks, 3, "each failed dial is a reason to look for another server")
        self.assertEqual(self.stage.pool.servers[0].state, "down")
        self.stage.servers[0].pong = b"+PONG\r\n"
        self.wait()
        self.send("GET k")
        self.assertEqual((self.stage.asked(), self.stage.pool.servers[0].state), (["GET k"], "up"))
        self.stage.reply(OK)

    def wait(self) -> None:
        """
        Let ten seconds pass.
        """
        for _ in range(20):
            self.clock.advance(0.5)
            self.stage.look()


class ReplicaTests(SynchronousTestCase):
    """
    Tests for a server that has become a replica.
    """

    def setUp(self) -> None:
        """
        Connect a client.
        """
        self.stage = RedisStage(maximum=2, waitTimeout=3.0)
        self.one = self.stage.client()

    def write(self, *replies: bytes) -> bytes:
        """
        Send a request, which the server answers.

        @return: what the client gets.
        """
        self.one.take()
        self.one.send(request("SET k 1"))
        for each in replies:
            self.stage.reply(each)
        return self.one.take()

    def test_dialedAgain(self) -> None:
        """
        The server is dialed again, so that its name is looked up again, and the write is sent there. It is not down.
        """
        self.stage.clock.advance(LOOK)
        self.assertEqual(self.write(READ_ONLY, OK), OK)
        self.assertEqual([line.connected for line in self.stage.lines], [False, True])
        self.assertEqual(self.stage.looks, 1)
        (server,) = self.stage.pool.servers
        self.assertEqual((server.state, server.failures, server.traffic.closed), ("up", 0, {"outdated": 1}))

    def test_notAlways(self) -> None:
        """
        A client that writes to replicas gets the error of the server, and does not cause a dial for each request.
        """
        self.stage.clock.advance(LOOK)
        for _ in range(10):
            self.assertEqual(self.write(READ_ONLY, READ_ONLY), READ_ONLY)
        self.assertEqual(len(self.stage.lines), 2)
