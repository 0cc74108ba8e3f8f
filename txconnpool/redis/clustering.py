# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Sends requests to the nodes of a cluster, which report which of them has which keys.

A node that does not have a key says which one does, or that the key cannot be served now. It has not executed the
request then, so that this is sent again. The error of a script may say the same and mean nothing, so a script is never
sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.interfaces import IRedirectedSink
from txconnpool.pool.calls import SingleRequest
from txconnpool.pool.connection import Connection, isLate
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.redis.errors import CrossSlot, InvalidArgument, ResponseError
from txconnpool.redis.sending import Journey, Sender
from txconnpool.redis.splitting import EVERYWHERE, WIDTHS
from txconnpool.redis.units import Step, Undone, Unit, inOrderOfKeys
from txconnpool.routing.clientnodes import ClientNodes
from txconnpool.routing.courses import DELAY_MAX, PRELUDE, Course
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.topology import Redirect

#: Commands that are sent to the node of their first argument, which is no key.
_BY_CHANNEL = ("publish",)


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
        waiting.addCallbacks(lambda _: self._proceed(), self._ended)

    def _ended(self, failure: Failure) -> None:
        if isinstance(failure.value, PoolError):  # otherwise the caller has cancelled the request
            self.fail(failure.value)

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


class ClusterSender(Sender):
    """
    Sends the requests of a pool to the nodes of a cluster. A target is one of the keys of a request, which are all in
    one slot; C{None}: any primary may get the request. A target of a request that all nodes get is the pool of a node.
    """

    def __init__(self, face: Any, meanings: Any, namespace: bytes) -> None:
        super().__init__(face, meanings, namespace)
        self._cluster: ClientNodes = face.nodes
        self._layout: tuple[Any, ...] = ()
        self._era = 0

    def _request(self, target: Any, command: RedisCommand, data: bytes, meaning: Any) -> Deferred[Any]:
        isKey = target is None or isinstance(target, bytes)
        key, node = (target, None) if isKey else (None, target)
        request = ClusterRequest(self._cluster, key, command, data, meaning, node)
        request.send()
        return request.result

    # -- Targets

    def _targetOf(self, command: RedisCommand, words: list[bytes]) -> Any:
        name = command.name
        keys = command.keysOf(words) or (words[1:2] if name in _BY_CHANNEL else [])
        if not keys and self._router.divides and (name in EVERYWHERE or name == "scan"):
            name = name.replace("|", " ").upper()
            raise InvalidArgument(f"{name} concerns all nodes of the cluster: call it by itself")
        if not self._router.together(keys):
            raise CrossSlot("CROSSSLOT Keys in request don't hash to the same slot")
        return keys[0] if keys else None

    def keysOf(self, command: RedisCommand, words: list[bytes]) -> frozenset[bytes]:
        """
        @return: the keys of a request of a pipeline.
        """
        return frozenset(command.keysOf(words))

    def _divided(self, command: RedisCommand, words: list[bytes]) -> dict[Any, list[int]]:
        found: dict[int, list[int]] = {}
        for at in range(1, len(words), WIDTHS[command.name]):
            found.setdefault(self._router.shareOf(words[at]), []).append(at)
        return {words[places[0]]: places for places in found.values()}

    def together(self, first: Any, second: Any) -> bool:
        """
        @return: whether a transaction may have requests for two keys.
        """
        return bool(self._router.together([first, second]))

    def channelTarget(self, channels: list[bytes], patterns: list[bytes], sharded: bool) -> Any:
        """
        @return: the target of a subscription: messages are sent to all nodes, unless they are those of a slot.

        @raise CrossSlot: the channels are those of several slots.
        """
        if sharded and not self._router.together(channels):
            raise CrossSlot("CROSSSLOT Channels in request don't hash to the same slot")
        return channels[0] if channels else None

    async def _everyTarget(self) -> tuple[Any, ...]:
        if not self._cluster.isKnown:
            await self._cluster.whenKnown()
        primaries = self._cluster.primaries
        if not primaries:
            raise self._cluster.unserved
        return tuple(sorted(primaries, key=lambda pool: pool.servers[0].name))

    async def _scan(self, command: RedisCommand, words: list[bytes], convert: Any) -> Any:
        """
        Scan one primary after the other. A cursor is valid only while they are the same nodes.
        """
        layout = await self._everyTarget()
        if layout != self._layout:
            self._layout = layout
            self._era += 1
        if words[1].isdigit() and words[1] != b"0":
            cursor, era = divmod(int(words[1]), _ERAS)
            if era != self._era % _ERAS:
                raise InvalidArgument("the cluster has other primaries than when the scan began: begin it again")
            words[1] = b"%d" % cursor
        at, keys = await super()._scan(command, words, None)
        value = [at and at * _ERAS + self._era % _ERAS, keys]
        return value if convert is None else convert(value)

    # -- Requests that need a connection of their own, and several together

    def journey(self, target: Any) -> ClusterJourney:
        """
        @return: the way to the node of a key.
        """
        return ClusterJourney(self._cluster, target)

    def sendSteps(self, queued: list[tuple[Any, Step]]) -> None:
        """
        Send the requests of a pipeline: those for one node together, in order.
        """
        known = succeed(None) if self._cluster.isKnown else self._cluster.whenKnown()
        Pipelined(self._cluster, queued).sendAfter(known)


class NodeUnit(Unit):
    """
    Requests for one node that are sent together. If they were not sent, because the node has left the cluster, or
    because one that was to execute them once is down, they may be sent to another one.
    """

    __slots__ = ("_cluster", "_elsewhere")

    def __init__(
        self,
        cluster: ClientNodes,
        pool: Any,
        steps: list[Step],
        again: Callable[[list[Undone]], object] | None,
        elsewhere: Callable[[list[Step]], object],
        asking: bool = False,
    ) -> None:
        """
        @param elsewhere: called with the requests to send them to the nodes of their keys.
        """
        super().__init__(pool, steps, again, inOrderOfKeys, asking)
        self._cluster = cluster
        self._elsewhere = elsewhere

    def redirected(self, redirect: Redirect, server: Server) -> None:
        """
        The node has not executed the oldest request, or a script says so.
        """
        if not redirect.command.redirectable:
            self._cluster.wrong()  # it may be true, and the next request then gets to the right node
        super().redirected(redirect, server)

    def fail(self, error: Exception) -> None:
        """
        Fail all requests that have no reply, unless they can be sent elsewhere.
        """
        left = isinstance(error, PoolClosed) and self._cluster.leaves(self._pool)
        if self._server is None and (left or (self._asking and not isinstance(error, PoolClosed))):
            steps = list(self._steps)
            self._steps.clear()
            self._elsewhere(steps)
        else:
            super().fail(error)


#: The number of layouts of a cluster that cursors of scans distinguish.
_ERAS = 1 << 20


class Pipelined:
    """
    The requests of one pipeline for a cluster. Requests with a key in common are executed in their order.
    """

    def __init__(self, cluster: ClientNodes, queued: list[tuple[Any, Step]]) -> None:
        """
        @param queued: the requests, each with a key, or C{None}.
        """
        self._cluster = cluster
        self._steps = [step for _, step in queued]
        self._keys = {step: key for key, step in queued}
        self._courses: dict[int, Course] = {}

    def sendAfter(self, waiting: Deferred[None], steps: list[Step] | None = None, once: Any = None) -> None:
        """
        Send requests after some time.

        @param steps: all, if not given.
        @param once: the pool of the node that gets them although it does not have their slot yet, or C{None}.
        """
        sent = self._steps if steps is None else steps

        def failed(failure: Failure) -> None:
            for step in sent:
                step.result.errback(failure)

        waiting.addCallbacks(lambda _: self._send(sent, once), failed)

    def _send(self, steps: list[Step], once: Any) -> None:
        if once is not None:
            NodeUnit(self._cluster, once, steps, self._again, self._sendByKey, True).send()
        else:
            self._sendByKey(steps)

    def _sendByKey(self, steps: list[Step]) -> None:
        router = self._cluster.router
        byPool: dict[Any, list[Step]] = {}
        for step in steps:
            key = self._keys[step]
            try:
                pool = router.anyOf() if key is None else router.choose(key)
            except PoolError as error:
                step.fail(error)
            else:
                byPool.setdefault(pool, []).append(step)
        for pool, its in byPool.items():
            NodeUnit(self._cluster, pool, its, self._again, self._sendByKey).send()

    def _again(self, undone: list[Undone]) -> None:
        """
        Send requests again that nodes have not executed, those of one slot together.
        """
        bySlot: dict[int, list[Undone]] = {}
        for each in undone:
            key = self._keys[each.step]
            if key is None:
                each.step.answer(each.redirect)
            else:
                bySlot.setdefault(self._cluster.router.slotOf(key), []).append(each)
        for slot, its in bySlot.items():
            self._follow(slot, its)

    def _follow(self, slot: int, undone: list[Undone]) -> None:
        cluster = self._cluster
        now = cluster.reactor.seconds()
        course = self._courses.get(slot)
        if course is None:
            course = self._courses[slot] = Course(now)
        step, redirect, server = undone[0]
        key = self._keys[step]
        assert key is not None
        try:
            following = course.follow(cluster.router, redirect, key, server, now)
        except PoolError as error:
            for each in undone:
                each.step.fail(error)
            return
        if following is None:
            for each in undone:
                each.step.answer(each.redirect)
            return
        cluster.counters.retries += len(undone)
        once, delay = following
        steps = [each.step for each in undone]
        self.sendAfter(cluster.wait(delay) if delay else succeed(None), steps, once)
