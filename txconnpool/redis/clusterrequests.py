# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Single requests for a cluster, whose nodes report which of them has which keys.

A node that does not have a key says which one does, or that the key cannot be served now. It has not executed the
request then, so that this is sent again. The error of a script may say the same and mean nothing, so a script is never
sent again.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.interfaces import IRedirectedSink
from txconnpool.pool.calls import SingleRequest
from txconnpool.pool.connection import Connection, isLate
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.redis.clusterunits import NodeUnit
from txconnpool.redis.errors import ResponseError
from txconnpool.redis.sending import Journey
from txconnpool.redis.units import Step
from txconnpool.routing.clientnodes import ClientNodes
from txconnpool.routing.courses import DELAY_MAX, PRELUDE, Course
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.topology import Redirect


@implementer(IRedirectedSink)
class ClusterRequest(SingleRequest):
    """
    A request for a key of a cluster.
    """

    __slots__ = ("_avoided", "_cluster", "_command", "_course", "_key", "_node", "_once", "_reads", "_waiting")

    def __init__(
        self, cluster: ClientNodes, key: bytes | None, command: RedisCommand, data: bytes, meaning: Any, node: Any
    ) -> None:
        """
        @param key: a key of the request; C{None}: any primary may get it.
        @param node: the pool of the only node that gets the request, or C{None}.
        """
        super().__init__(None, command, data, meaning)
        self._command = command
        self._cluster = cluster
        self._key = key
        self._node = node
        self._course: Course | None = None
        self._once: Any = None  # the pool of the node that gets it although it does not have the slot yet
        self._reads = False  # whether it waits for a connection of a node that reads, which may be a replica
        self._avoided = ""  # the name of the server that has failed to execute it
        self._waiting: Deferred[None] | None = None

    def send(self) -> None:
        """
        Send the request, at once or when it is known where the keys are.
        """
        if self._cluster.isKnown:
            self._proceed()
        else:
            self._after(self._cluster.whenKnown())

    def _after(self, waiting: Deferred[None]) -> None:
        self._waiting = waiting
        waiting.addCallbacks(lambda _: self._proceed(), self._ended).addErrback(self._broken)

    def _ended(self, failure: Failure) -> None:
        if isinstance(failure.value, PoolError):  # otherwise the caller has cancelled the request
            self.fail(failure.value)

    def _broken(self, failure: Failure) -> None:
        """
        Fail with an unexpected exception.
        """
        if not self.result.called:
            self.result.errback(failure)

    def _proceed(self) -> None:
        self._waiting = None
        if self.result.called:
            return
        try:
            self._pool = pool = self._choose()
        except PoolError as error:
            self._reads = False
            self.fail(error)
        else:
            pool.send(self)

    def _choose(self) -> Any:
        cluster = self._cluster
        if self._node is not None or self._once is not None:
            return self._node or self._once
        router, key = cluster.router, self._key
        if key is None:
            return router.anyOf()
        reads = self._readers()
        if reads is None or self._course is not None:
            return router.choose(key)
        pool = (reads.without(self._avoided) if self._avoided else reads).choose(key)
        self._reads = not self._avoided
        return pool

    def _readers(self) -> Any:
        """
        @return: the router for requests that read; C{None}: the primary gets this one.
        """
        reads = self._command.idempotent and self._command.redirectable
        return self._cluster.router.reads if reads and self._key is not None and self._node is None else None

    def granted(self, record: Record) -> None:
        """
        Send the request on a connection with capacity.
        """
        self._reads = False
        if self._once is not None and not self.result.called:
            record.connection.send(PRELUDE, *Redis.asking)
        super().granted(record)

    def redirected(self, redirect: Redirect, server: Server) -> None:
        """
        The node has not executed the request.
        """
        cluster, key = self._cluster, self._key
        if self.result.called:
            return
        if key is None or self._node is not None or not self._command.redirectable:
            self.answer(redirect)
            return
        now = cluster.reactor.seconds()
        if self._course is None:
            self._course = Course(now)
        try:
            following = self._course.follow(cluster.router, redirect, key, server, now)
        except PoolError as error:
            self.fail(error)
            return
        if following is None:
            self.answer(redirect)
            return
        cluster.counters.retries += 1
        self._once, delay = following
        if delay:
            self._after(cluster.wait(delay))
        else:
            self._proceed()

    def answer(self, reply: bytes) -> None:
        """
        Fire C{result} with the meaning of a reply.
        """
        if self._command.runsScript and reply.startswith((b"-MOVED ", b"-CLUSTERDOWN ")):
            self._cluster.wrong()  # it may be true, and the next request then gets to the right node
        super().answer(reply)

    def fail(self, error: Exception) -> None:
        """
        Fail C{result}, unless another node may execute the request, which was not sent.
        """
        if self._reads:
            self._reads = False
            self._avoided = self._pool.servers[0].name
            self._proceed()
        elif isinstance(error, PoolClosed) and self._cluster.leaves(self._pool) and self._node is None:
            self._once = None
            self._proceed()
        elif self._once is not None and getattr(error, "sent", False) is False and not self.result.called:
            self._once = None  # the node that has the slot can say again which one is to execute the request
            self._proceed()
        else:
            super().fail(error)

    def abort(self, error: PoolError) -> None:
        """
        Fail C{result}, because of an unexpected exception.
        """
        super().fail(error)

    def forget(self) -> None:
        """
        Stop waiting, because the caller has cancelled the request.
        """
        if self._waiting is not None:
            self._waiting.cancel()
        super().forget()

    def afterLoss(self, error: PoolError) -> None:
        """
        The connection was lost: send a read once more, to another node if there is one, or fail.
        """
        self._avoided = error.server
        reads = self._readers() if isLate(self.command, error) else None
        if reads is not None and not self._retried and reads.without(self._avoided).nodes(self._key):
            self._sendAgain()
        else:
            super().afterLoss(error)

    def _sendAgain(self) -> None:
        self._retried = True
        self._once = None
        self._cluster.counters.retries += 1
        self._proceed()


class ClusterJourney(Journey):
    """
    The way of requests to the node that executes them.
    """

    def __init__(self, cluster: ClientNodes, key: bytes | None) -> None:
        """
        @param key: a key of the requests; C{None}: any primary may get them.
        """
        super().__init__(None)
        self._cluster = cluster
        self._key = key
        self._course: Course | None = None
        self._once: Any = None

    async def _choose(self) -> Any:
        cluster = self._cluster
        if not cluster.isKnown:
            await cluster.whenKnown()
        once, router = self._once, cluster.router
        self._pool = once or (router.anyOf() if self._key is None else router.choose(self._key))
        return self._pool

    async def lease(self) -> tuple[Any, Connection]:
        """
        Lease a connection to the node.

        @return: its pool, and the connection.
        """
        while True:
            pool = await self._choose()
            try:
                connection: Connection = await pool.acquire()
            except PoolClosed:
                if not self._cluster.leaves(pool):
                    raise
                self._once = None  # the node that has the slot says again which one is to execute the request
            else:
                break
        if self._once is not None:
            self._once = None
            connection.send(PRELUDE, *Redis.asking)
        return pool, connection

    async def send(self, steps: list[Step]) -> None:
        """
        Send requests together on a connection with others.
        """
        pool = await self._choose()
        asking, self._once = self._once is not None, None
        NodeUnit(self._cluster, pool, steps, None, self._sendElsewhere, asking).send()

    def _sendElsewhere(self, steps: list[Step]) -> None:
        Deferred.fromCoroutine(self._sendAgain(steps))

    async def _sendAgain(self, steps: list[Step]) -> None:
        try:
            await self.send(steps)
        except PoolError as error:
            for step in steps:
                step.fail(error)

    async def follow(self, error: ResponseError) -> bool:
        """
        Decide what is done about an error, and wait as long as it needs.

        @return: whether the request is to be sent again now.

        @raise ServerUnavailable: no node executes it.
        """
        redirect, cluster = error.redirect, self._cluster
        if redirect is None:
            return await super().follow(error)
        if self._key is None:
            return False
        now = cluster.reactor.seconds()
        waited = redirect.command.mayBlock and redirect.since + DELAY_MAX < now
        if self._course is None or waited:
            self._course = Course(now)  # if the node has waited before, this is no loop
        following = self._course.follow(cluster.router, redirect, self._key, self._pool.servers[0], now)
        if following is None:
            return False
        cluster.counters.retries += 1
        self._once, delay = following
        if delay:
            await cluster.wait(delay)
        return True
