# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What the tests of the library share: a protocol of lines, servers in memory that do as they are told, and a clock.
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
from txconnpool.pool.library import Pool


class Reactor(Clock):
    """
    A clock that can be stopped.

    @ivar triggers: what is to be called before it stops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Callable[[], Any]] = []

    def addSystemEventTrigger(self, phase: str, event: str, f: Callable[[], Any]) -> Any:
        """
        Remember whom to call.
        """
        assert (phase, event) == ("before", "shutdown")
        self.triggers.append(f)
        return f

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        """
        Forget it. Whoever was called already may not be removed: a real reactor warns.
        """
        self.triggers.remove(trigger)

    def stop(self) -> list[Any]:
        """
        Call everybody, as a real reactor does.

        @return: what they said.
        """
        said = []
        while self.triggers:
            said.append(self.triggers.pop(0)())
        return said

    def turns(self, count: int = 10) -> None:
        """
        Let happen what happens without time passing.
        """
        for _ in range(count):
            self.advance(0)


class Client(Protocol):
    """
    Asks one line and is answered one line, in order.

    @ivar asked: all it was asked.
    @ivar lost: why its connection was lost, once it was.
    """

    transport: Any

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lost: Failure | None = None
        self._waiting: deque[Deferred[str]] = deque()
        self._line = b""

    def ask(self, word: str) -> Deferred[str]:
        """
        Ask something.
        """
        assert self.lost is None, "asked on a lost connection"
        self.asked.append(word)
        self.transport.write(word.encode() + b"\r\n")
        answer: Deferred[str] = Deferred()
        self._waiting.append(answer)
        return answer

    def add(self, *numbers: int, start: int = 0) -> int:
        """
        Answer at once.
        """
        return sum(numbers, start)

    def fault(self) -> None:
        """
        Fail at once.
        """
        raise LookupError("no such thing")

    async def later(self, word: str) -> str:
        """
        Ask twice.
        """
        return await self.ask(word) + await self.ask(word)

    notCallable = "an attribute"

    def dataReceived(self, data: bytes) -> None:
        """
        Answers. One that starts with C{!} is an error.
        """
        *lines, self._line = (self._line + data).split(b"\r\n")
        for line in lines:
            answer = self._waiting.popleft()
            if line.startswith(b"!"):
                answer.errback(LookupError(line[1:].decode()))
            else:
                answer.callback(line.decode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Nothing more will be answered.
        """
        self.lost = reason
        waiting = list(self._waiting)
        self._waiting.clear()
        for answer in waiting:
            answer.errback(reason)


class Careless(Client):
    """
    Says nothing to those who wait when its connection is lost.
    """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget them.
        """
        self.lost = reason


class Far(Pipe):
    """
    A connection seen from the server.
    """

    @property
    def disconnecting(self) -> bool:
        """
        Whether it is being closed: what Twisted's protocols of lines look at.
        """
        return self.closing

    @property
    def asked(self) -> list[str]:
        """
        All that was asked.
        """
        return self.received.decode().split("\r\n")[:-1]

    def answer(self, *words: str) -> None:
        """
        Answer the oldest questions.
        """
        for word in words:
            self.send(word.encode() + b"\r\n")


class Server(Endpoint[Far]):
    """
    A server that answers what it is told to.
    """

    kind = Far


class PoolCase(SynchronousTestCase):
    """
    A test with servers and pools, of which nothing may be left at its end.

    @ivar server: the first server.
    """

    def setUp(self) -> None:
        """
        Nothing is connected.
        """
        self.reactor = Reactor()
        self.server = Server(self.reactor)
        self.servers = [self.server]
        self.addCleanup(self.assertNothingLeft)

    def assertNothingLeft(self) -> None:
        """
        Assert that there is no connection, no timer and no trigger.
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

    def pool(self, *servers: Server, client: Any = Client, **options: Any) -> Pool[Any]:
        """
        @param servers: the servers; the first one if not given.
        @param client: the class of the clients.

        @return: a new pool, of which nothing may be left at the end of the test.
        """
        options.setdefault("clientFactory", Factory.forProtocol(client))
        pool: Pool[Any] = Pool(list(servers) or self.server, reactor=self.reactor, **options)
        self.addCleanup(self.finish, pool)
        return pool

    def ask(self, pool: Pool[Any], word: str = "x") -> Deferred[Any]:
        """
        Ask something that may have no answer when the test ends.
        """
        answer = pool.performRequest("ask", word)
        self.addCleanup(answer.addErrback, lambda failure: None)
        return answer

    def finish(self, pool: Pool[Any]) -> None:
        """
        Assert that a pool closes without leaving anything behind.
        """
        done = pool.abort()
        self.reactor.turns()
        self.successResultOf(done)
        pool.selfCheck()
        self.assertEqual(pool.state.records, [])

    def errors(self, *results: Deferred[Any]) -> list[type[BaseException]]:
        """
        @return: as what these have failed.
        """
        return [type(self.failureResultOf(result).value) for result in results]

    def error(self, result: Deferred[Any]) -> PoolError:
        """
        @return: the error of the pool as which this has failed.
        """
        error = self.failureResultOf(result, PoolError).value
        assert isinstance(error, PoolError)
        return error
