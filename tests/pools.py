# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What tests of pools share: a protocol of lines, servers in memory that reply when a test says so, and a reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import Endpoint, Pipe
from txconnpool.errors import PoolError
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.library import RequestPool
from txconnpool.routing.library import PoolFace


class Reactor(Clock):
    """
    A clock with the shutdown triggers of a reactor.

    @ivar triggers: the functions to call before shutdown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Callable[[], Any]] = []

    def addSystemEventTrigger(self, phase: str, event: str, f: Callable[[], Any]) -> Any:
        assert (phase, event) == ("before", "shutdown")
        self.triggers.append(f)
        return f

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        """
        Forget a trigger. As with a real reactor, a trigger that was called must not be removed.
        """
        self.triggers.remove(trigger)

    def stop(self) -> list[Any]:
        """
        Call all triggers, as a real reactor does when it stops.

        @return: their results.
        """
        said = []
        while self.triggers:
            said.append(self.triggers.pop(0)())
        return said

    def turns(self, count: int = 10) -> None:
        """
        Run the calls that are due without advancing the time.
        """
        for _ in range(count):
            self.advance(0)


class Client(Protocol):
    """
    A protocol of lines: a request is one line, and its reply is the next line that was not yet a reply.

    @ivar asked: all requests.
    @ivar lost: the reason why the connection was lost, or C{None}.
    """

    transport: Any

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lost: Failure | None = None
        self.waiting: deque[Deferred[str]] = deque()
        self._line = b""

    def ask(self, word: str) -> Deferred[str]:
        """
        Send a request.
        """
        assert self.lost is None, "asked on a lost connection"
        self.asked.append(word)
        self.transport.write(word.encode() + b"\r\n")
        answer: Deferred[str] = Deferred()
        self.waiting.append(answer)
        return answer

    def add(self, *numbers: int, start: int = 0) -> int:
        """
        Return a result at once.
        """
        return sum(numbers, start)

    def fault(self) -> None:
        """
        Raise an exception.
        """
        raise LookupError("no such thing")

    async def later(self, word: str) -> str:
        """
        Send two requests, one after the other.
        """
        return await self.ask(word) + await self.ask(word)

    notCallable = "an attribute"

    def dataReceived(self, data: bytes) -> None:
        """
        Receive replies. One that starts with C{!} is an error.
        """
        *lines, self._line = (self._line + data).split(b"\r\n")
        for line in lines:
            answer = self.waiting.popleft()
            if line.startswith(b"!"):
                answer.errback(LookupError(line[1:].decode()))
            else:
                answer.callback(line.decode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Fail all requests in flight.
        """
        self.lost = reason
        waiting = list(self.waiting)
        self.waiting.clear()
        for answer in waiting:
            answer.errback(reason)


class Careless(Client):
    """
    A client that does not fail its requests when the connection is lost.
    """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Far(Pipe):
    """
    The server's end of a connection.
    """

    @property
    def disconnecting(self) -> bool:
        """
        Whether the connection is being closed, as Twisted's line protocols look it up.
        """
        return self.closing

    @property
    def asked(self) -> list[str]:
        """
        All requests received.
        """
        return self.received.decode().split("\r\n")[:-1]

    def answer(self, *words: str) -> None:
        """
        Send replies.
        """
        for word in words:
            self.send(word.encode() + b"\r\n")


class Server(Endpoint[Far]):
    """
    A server in memory that replies only when a test says so.
    """

    kind = Far


class PoolCase(SynchronousTestCase):
    """
    A test case with servers and pools. It asserts at the end of each test that nothing is left of them.

    @ivar server: the first server.
    """

    def setUp(self) -> None:
        """
        Make a reactor and a server.
        """
        self.reactor = Reactor()
        self.server = Server(self.reactor)
        self.servers = [self.server]
        self.addCleanup(self.assertNothingLeft)

    def assertNothingLeft(self) -> None:
        """
        Assert that there is no connection, no timer and no shutdown trigger.
        """
        self.assertEqual([line for server in self.servers for line in server.open], [])
        self.assertEqual([each.getTime() for each in self.reactor.getDelayedCalls()], [])
        self.assertEqual(self.reactor.triggers, [])

    def another(self, name: str) -> Server:
        """
        @return: one more server.
        """
        self.servers.append(Server(self.reactor, name))
        return self.servers[-1]

    def pool(self, *servers: Server, client: Any = Client, **options: Any) -> RequestPool[Any]:
        """
        @param servers: the servers; the first one if not given.
        @param client: the class of the clients.

        @return: a new pool. It is closed at the end of the test.
        """
        options.setdefault("clientFactory", Factory.forProtocol(client))
        pool: RequestPool[Any] = RequestPool(list(servers) or self.server, reactor=self.reactor, **options)
        self.addCleanup(self.finish, pool)
        return pool

    def ask(self, pool: RequestPool[Any], word: str = "x") -> Deferred[Any]:
        """
        Make a request that need not have a result when the test ends.
        """
        answer = pool.performRequest("ask", word)
        self.addCleanup(answer.addErrback, lambda failure: None)
        return answer

    def finish(self, pool: PoolEngine | PoolFace[Any]) -> None:
        """
        Close a pool, and assert that nothing is left of it.
        """
        done = pool.abort()
        self.reactor.turns()
        self.successResultOf(done)
        pool.selfCheck()
        self.assertEqual(pool.records, [])

    def errors(self, *results: Deferred[Any]) -> list[type[BaseException]]:
        """
        @return: the classes of the errors with which these have failed.
        """
        return [type(self.failureResultOf(result).value) for result in results]

    def error(self, result: Deferred[Any]) -> PoolError:
        """
        @return: the L{PoolError} with which this has failed.
        """
        error = self.failureResultOf(result, PoolError).value
        assert isinstance(error, PoolError)
        return error
