# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Several requests for a cluster that are sent together, each to the node of its key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.pool.decisions.servers import Server
from txconnpool.redis.units import Step, Undone, Unit, inOrderOfKeys
from txconnpool.routing.clientnodes import ClientNodes
from txconnpool.routing.courses import Course
from txconnpool.wire.topology import Redirect


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
                if not step.result.called:
                    step.result.errback(failure)

        waiting.addCallback(lambda _: self._send(sent, once)).addErrback(failed)

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
