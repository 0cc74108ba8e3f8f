# Copyright txconnpool contributors. See LICENSE.
"""
A state machine test of L{txconnpool.pool.library.RequestPool}: random histories of events, and the invariants after
each.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pools import Careless, Client, Far, PoolCase, Reactor, Server
from txconnpool.errors import ClientNotOwned, PoolClosed
from txconnpool.pool.library import RequestPool


class Machine(RuleBasedStateMachine):
    """
    A pool with two servers, its callers, and random events in random order. The invariants are checked after each.

    @ivar asked: the requests without a result, by their numbers.
    @ivar leases: the clients of all leases.
    """

    def __init__(self) -> None:
        super().__init__()
        self.case = PoolCase()
        self.reactor = Reactor()
        self.servers = [Server(self.reactor, "one"), Server(self.reactor, "two")]
        self.asked: dict[int, Deferred[Any]] = {}
        self.wanted: list[Deferred[Any]] = []
        self.leases: list[Client] = []
        self.numbers = 0
        self.requested = 0
        self.closedOut = 0
        self.answeredLines: dict[Far, int] = {}

    @initialize(depth=st.integers(1, 2), careless=st.booleans(), guarded=st.booleans())
    def begin(self, depth: int, careless: bool, guarded: bool) -> None:
        """
        Make a pool with or without pipelining, with clients that do or do not fail their requests when the connection
        is lost, and with or without C{check} and C{reset}.
        """
        options: dict[str, Any] = {}
        if guarded:
            options = {"check": self.errand, "checkIfIdleFor": 2.0, "keepAlive": 5.0, "reset": self.errand}
        self.pool: RequestPool[Any] = RequestPool(
            self.servers, 3, self.reactor, clientFactory=Factory.forProtocol(Careless if careless else Client),
            pipelineDepth=depth, minClients=1, maxWaiting=4, waitTimeout=4.0, connectTimeout=3.0, requestTimeout=6.0,
            idleTimeout=8.0, maxLifetime=20.0, whenDown=2, cancelGrace=2.0, leakThreshold=7.0, **options,
        )  # fmt: skip

    def errand(self, client: Client) -> Deferred[str]:
        """
        Check or reset a client.
        """
        return client.ask("errand")

    # -- Callers

    @rule()
    def request(self) -> None:
        """
        A caller makes a request.
        """
        self.ask()

    @rule()
    def requestAgain(self) -> None:
        """
        A caller makes a request, and another one when it has a result.
        """
        self.ask().addCallback(self.again)

    def again(self, result: None) -> None:
        self.ask()

    def ask(self) -> Deferred[Any]:
        """
        Make a request with a number of its own.
        """
        self.numbers += 1
        self.requested += 1
        number = self.numbers
        answer = self.asked[number] = self.pool.performRequest("ask", str(number))
        return answer.addCallbacks(self.answered, self.failed, callbackArgs=(number,), errbackArgs=(number,))

    def answered(self, result: str, number: int) -> None:
        """
        The reply is the one to this request.
        """
        assert result == f"re:{number}"
        del self.asked[number]

    def failed(self, failure: Failure, number: int) -> None:
        """
        The request failed.
        """
        self.closedOut += failure.check(PoolClosed) is not None
        del self.asked[number]

    @rule()
    def acquire(self) -> None:
        """
        A caller wants a lease.
        """
        self.requested += 1
        wanted = self.pool.acquire()
        self.wanted.append(wanted)
        wanted.addCallbacks(self.got, self.gotNone).addBoth(lambda _: self.wanted.remove(wanted))

    @rule()
    def acquireNow(self) -> None:
        """
        A caller wants a lease now.
        """
        client = self.pool.acquireNow()
        if client is not None:
            self.requested += 1
            self.got(client)

    def got(self, client: Client) -> None:
        """
        Nobody else has the client.
        """
        assert client not in self.leases
        assert not client.waiting, "something is in flight on it"
        self.leases.append(client)

    def gotNone(self, failure: Failure) -> None:
        """
        There is no lease.
        """
        self.closedOut += failure.check(PoolClosed) is not None

    @precondition(lambda self: self.leases)
    @rule(index=st.integers(0, 9), discard=st.booleans())
    def release(self, index: int, discard: bool) -> None:
        """
        A client is released, once.
        """
        client = self.leases.pop(index % len(self.leases))
        self.pool.release(client, discard)
        if client not in self.leases:
            self.case.assertRaises(ClientNotOwned, self.pool.release, client)

    @precondition(lambda self: self.asked or self.wanted)
    @rule(index=st.integers(0, 9))
    def cancel(self, index: int) -> None:
        """
        A request or lease is cancelled.
        """
        everybody = [*self.asked.values(), *self.wanted]
        everybody[index % len(everybody)].cancel()

    # -- Servers

    @property
    def lines(self) -> list[Far]:
        """
        All connections.
        """
        return [line for server in self.servers for line in server.open]

    def owed(self, line: Far) -> list[str]:
        """
        @return: the requests to which a server has not replied.
        """
        return line.asked[self.answeredLines.get(line, 0) :]

    @precondition(lambda self: any(map(self.owed, self.lines)))
    @rule(index=st.integers(0, 9))
    def answer(self, index: int) -> None:
        """
        A server sends a reply.
        """
        lines = [line for line in self.lines if self.owed(line)]
        line = lines[index % len(lines)]
        word = self.owed(line)[0]
        self.answeredLines[line] = self.answeredLines.get(line, 0) + 1
        line.answer(f"re:{word}")
        self.reactor.turns(3)

    @precondition(lambda self: self.lines)
    @rule(index=st.integers(0, 9))
    def lose(self, index: int) -> None:
        """
        A connection is lost.
        """
        self.lines[index % len(self.lines)].lose()
        self.reactor.turns(3)

    @rule(index=st.integers(0, 1), mode=st.sampled_from(["accept", "accept", "refuse", "hang"]))
    def mode(self, index: int, mode: str) -> None:
        """
        A server accepts, refuses, or does not answer dials from now on.
        """
        self.servers[index].mode = mode

    @precondition(lambda self: any(server.hanging for server in self.servers))
    @rule(good=st.booleans())
    def dialEnds(self, good: bool) -> None:
        """
        A pending dial succeeds or fails.
        """
        server = next(server for server in self.servers if server.hanging)
        (server.accept if good else server.refuse)()

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.3, 1.5, 2.5, 5.0, 9.0]))
    def advance(self, seconds: float) -> None:
        """
        Time passes.
        """
        self.reactor.turns(3)
        self.reactor.advance(seconds)
        self.reactor.turns(3)

    # -- Reports of clients

    @precondition(lambda self: self.lines)
    @rule(index=st.integers(0, 9), what=st.sampled_from(["clientFree", "clientBusy", "clientGone"]))
    def says(self, index: int, what: str) -> None:
        """
        A client reports something, true or not.
        """
        getattr(self.pool, what)(self.lines[index % len(self.lines)].protocol.connection)

    # -- Operators

    @rule(minimum=st.integers(0, 2), more=st.integers(1, 3))
    def resize(self, minimum: int, more: int) -> None:
        """
        Other limits are applied.
        """
        self.pool.resize(minimum, minimum + more)

    @rule()
    def expire(self) -> None:
        """
        All connections are replaced.
        """
        self.pool.expire()

    @rule(timeout=st.sampled_from([None, 0.0, 3.0]), force=st.booleans())
    def close(self, timeout: float | None, force: bool) -> None:
        """
        The pool is closed.
        """
        done = self.pool.abort() if force else self.pool.close(timeout)
        done.addCallback(lambda _: self.case.assertEqual(self.pool.state.records, []))

    @rule()
    def start(self) -> None:
        """
        The pool is started.
        """
        self.pool.start()

    # -- Invariants

    @invariant()
    def sound(self) -> None:
        """
        The invariants of the pool hold, and its records agree with the connections of the servers.
        """
        if not hasattr(self, "pool"):
            return
        self.pool.selfCheck()
        state = self.pool.state
        mine = {id(record.connection) for record in state.records if record.connection is not None}
        there = {id(line.protocol.connection) for line in self.lines}
        assert mine <= there
        assert there - mine <= {id(line.protocol.connection) for line in self.lines if line.aborted}
        for line in self.lines:
            assert len(self.owed(line)) <= state.limits.depth

    @invariant()
    def inOrder(self) -> None:
        """
        Requests are sent in the order in which they were made.
        """
        if not hasattr(self, "pool"):
            return
        sent = {word for server in self.servers for line in server.lines for word in line.asked}
        waiting = [number for number, answer in self.asked.items() if str(number) not in sent and not answer.called]
        later = [number for number in self.asked if str(number) in sent]
        assert not waiting or not later or max(later) < min(waiting), (waiting, later)

    @invariant()
    def counted(self) -> None:
        """
        Each caller is counted once: as one that got a connection, or an error, or waits.
        """
        if hasattr(self, "pool"):
            each = self.pool.stats
            known = each.acquired + each.timedOut + each.cancelled + each.rejected + each.unavailable + each.waiting
            assert known + self.closedOut == self.requested

    def teardown(self) -> None:
        """
        After the end nothing is left.
        """
        if not hasattr(self, "pool"):
            return
        self.pool.abort()
        for client in self.leases:
            self.pool.release(client)
        self.reactor.turns()
        self.case.reactor, self.case.servers = self.reactor, self.servers
        self.case.finish(self.pool)
        self.case.assertNothingLeft()
        assert (self.asked, self.wanted) == ({}, [])


class MachineTests(SynchronousTestCase):
    """
    Runs L{Machine}.
    """

    @covers("19")
    def test_anything(self) -> None:
        """
        The invariants hold after every step of many random histories.
        """
        run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=50, deadline=None))
