# -*- test-case-name: tests.proxy.test_clustering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests that a node of a cluster has not executed: they are sent to another node, or again later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IRedirectedSink
from txconnpool.proxy.parts import Part
from txconnpool.proxy.placing import SpreadReply
from txconnpool.proxy.replies import QueuedRequest
from txconnpool.proxy.scatter import ScatteredReply
from txconnpool.routing.courses import DELAY_MAX, Course
from txconnpool.wire.topology import Redirect


class Trail:
    """
    What has happened to a request that was redirected.

    @ivar pool: the pool that gets it the next time, and only then; C{None}: the pool of its key does.
    @ivar slot: the slot of its keys.
    @ivar at: the pool to which it was sent, while it is in flight, or C{None}.
    """

    __slots__ = ("_course", "_router", "_session", "_timer", "at", "pool", "slot")

    def __init__(self, session: Any, router: Any = None) -> None:
        """
        @param router: chooses the pool that gets the request; C{None}: that of the session.
        """
        self._session = session
        self._router = router
        self._timer: Any = None
        self.begin()
        self.pool: Any = None
        self.slot = -1
        self.at: Any = None

    def begin(self) -> None:
        """
        Forget earlier redirects: the next one is the first.
        """
        self._course = Course(self._session.factory.reactor.seconds())

    @property
    def router(self) -> Any:
        """
        Chooses the pool that gets the request.
        """
        return self._session.router if self._router is None else self._router

    @property
    def waits(self) -> bool:
        """
        Whether the request is not to be sent yet.
        """
        return self._timer is not None

    def follow(self, redirect: Redirect, server: Any) -> bytes | None:
        """
        Decide what is done about a redirect.

        @param server: the server that has sent it.

        @return: the reply for the client; C{None}: the request is sent again, when C{waits} is false.
        """
        session, command = self._session, redirect.command
        self.arrived()
        if session.gone:
            return b""
        router = self.router
        self.pool = None
        if not command.redirectable:  # a script may have said it
            router.cluster.wrong()
            return bytes(command.visible(redirect))
        key = command.key(redirect.request, 0)
        if key is None:
            return bytes(command.visible(redirect))
        self.slot = router.slotOf(key)
        reactor = session.factory.reactor
        try:
            following = self._course.follow(router, redirect, key, server, reactor.seconds())
        except PoolError as error:
            return bytes(session.refusal(command, 1, error))
        if following is None:
            return bytes(command.visible(redirect))
        self.pool, delay = following
        if delay:
            self._timer = reactor.callLater(delay, self._wake)
        return None

    def postpone(self) -> bool:
        """
        Decide what is done about a request that a node has not executed, and that any primary may get: it is sent again
        when the cluster was perhaps asked for its nodes.

        @return: whether it is sent again, when C{waits} is false; if not, its time is over.
        """
        self.arrived()
        cluster, reactor = self.router.cluster, self._session.factory.reactor
        cluster.postponed()
        delay = self._course.delay(cluster, reactor.seconds())
        if delay is not None:
            self._timer = reactor.callLater(delay, self._wake)
        return delay is not None

    def _wake(self) -> None:
        self._timer = None
        self._session.proceed()

    def sent(self, pool: Any) -> None:
        """
        The request was sent again.
        """
        self.at = pool
        self._session.trails |= {self}

    def arrived(self) -> None:
        """
        The request has its reply, or none will come.
        """
        self.at = None
        self._session.trails -= {self}

    def end(self) -> None:
        """
        Stop waiting, because the client is gone.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RedirectedRequest(QueuedRequest):
    """
    A request that a node has not executed, and its reply.

    @ivar trail: what has happened to it.
    """

    __slots__ = ("trail",)

    def __init__(self, session: Any, redirect: Redirect, trail: Trail) -> None:
        super().__init__(session, redirect.command, 1, redirect.request)
        self.trail = trail

    @property
    def ready(self) -> bool:  # type: ignore[override]  # that of all others is constant
        """
        Whether the request may be sent now.
        """
        return not self.trail.waits

    def replied(self, data: bytes, done: int) -> None:
        """
        Take bytes of the reply.
        """
        if done:
            self.trail.arrived()
        super().replied(data, done)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Let the request be sent again, or answer it with the error.
        """
        self.trail.arrived()
        super().requestsLost(requests, begun, error)

    def redirected(self, redirect: Redirect, server: Any) -> None:
        """
        The request was redirected once more.
        """
        reply = self.trail.follow(redirect, server)
        if reply is None:
            self._count, self.request = 1, redirect.request
        else:
            self.left = 0
            self.take(reply)
        self.session.redirectFollowed()

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self.trail.end()


class BlockedRequest(RedirectedRequest):
    """
    A request on a connection of the client's own for which a node has waited, for example for an element of a list, and
    whose slot has got another node. It is sent on another connection of the client's own, and the new node waits only
    for the rest of the time.
    """

    __slots__ = ("_since",)

    def __init__(self, session: Any, redirect: Redirect, trail: Trail) -> None:
        super().__init__(session, redirect, trail)
        self._since = redirect.since

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @return: the command, the number of replies, and the bytes to send.
        """
        command, count, request = super().next(room)
        return command, count, command.shortened(request, self.session.factory.reactor.seconds() - self._since)

    def redirected(self, redirect: Redirect, server: Any) -> None:
        """
        The request was redirected once more. If the node has waited before, this is no loop.
        """
        self._since = redirect.since
        if redirect.since + DELAY_MAX < self.session.factory.reactor.seconds():
            self.trail.begin()
        super().redirected(redirect, server)


class RepeatedPart(Part):
    """
    A part that is sent again if its node has not executed it.

    @ivar trail: what has happened to it, if its node has not executed it, or C{None}.
    """

    __slots__ = ("trail",)

    def __init__(self, whole: RepeatingReply, pool: Any, request: bytes, count: int) -> None:
        super().__init__(whole, pool, request, count)
        self.trail: Trail | None = None

    def replied(self, data: bytes, done: int) -> None:
        """
        Take bytes of the reply.
        """
        if done and self.trail is not None:
            self.trail.arrived()
        super().replied(data, done)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost.
        """
        if self.trail is not None:
            self.trail.arrived()
        super().requestsLost(requests, begun, error)


class RepeatingReply(ScatteredReply):
    """
    A reply of which a part that a node has not executed is sent again alone.
    """

    __slots__ = ()

    @property
    def ready(self) -> bool:
        """
        Whether the next part may be sent now.
        """
        if not super().ready:
            return False
        trail = self.parts[0].trail
        return trail is None or not trail.waits

    def _notExecuted(self, part: RepeatedPart, decide: Callable[[Trail], bytes | None]) -> None:
        """
        A node has not executed a part.

        @param decide: returns the reply in its place; C{None}: the part is sent again.
        """
        self._inFlight -= 1
        if self._requests:
            if part.trail is None:
                part.trail = Trail(self.session)
            reply = decide(part.trail)
            if reply is not None:
                self._inFlight += 1
                part.read(reply)
                self.answered(part)
                return
            self.parts.append(part)
        session: Any = self.session
        session.redirectFollowed(self._counted())

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        for part in self.parts:
            if part.trail is not None:
                part.trail.end()
        super().discard()


@implementer(IRedirectedSink)
class SlotPart(RepeatedPart):
    """
    A request for those of the keys that are in one slot, and its reply.

    @ivar avoided: the name of the server that has failed to execute it; empty: none has.
    """

    __slots__ = ("avoided",)

    def __init__(self, whole: SlotReply, pool: Any, request: bytes, count: int) -> None:
        super().__init__(whole, pool, request, count)
        self.avoided = ""

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        The node has not executed the request, and no other one has the slot.
        """
        if self.trail is not None:
            self.trail.arrived()
        return super().declined(connection, sent, reply)

    def redirected(self, redirect: Redirect, server: Any) -> None:
        """
        The node has not executed the request.
        """
        self.whole.redirected(self, redirect, server)


class SlotReply(RepeatingReply):
    """
    The reply to a request for keys in several slots.
    """

    kind = SlotPart

    __slots__ = ()

    def _unserved(self) -> PoolError:
        error: PoolError = self.session.router.cluster.unserved
        return error

    def _mayRepeat(self, part: SlotPart, error: PoolError) -> bool:
        part.avoided = error.server
        session: Any = self.session
        return super()._mayRepeat(part, error) or session.hasOther(self.command, part.key, error)

    def redirected(self, part: SlotPart, redirect: Redirect, server: Any) -> None:
        """
        A node has not executed a part.
        """
        self._notExecuted(part, lambda trail: trail.follow(redirect, server))


class PrimaryPart(RepeatedPart):
    """
    A request that all primaries get, for one of them, and its reply.
    """

    __slots__ = ()

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        The node has not executed the request: it is a replica now, for example.
        """
        if connection.carries(self.session, self):
            return False
        self.refusal = reply
        self.whole.declined(self)
        return True


class PrimariesReply(RepeatingReply, SpreadReply):
    """
    The reply to a request that all primaries get, or one that is not chosen by a key. If a node has become a replica
    meanwhile, the primary in its place gets the request.
    """

    kind = PrimaryPart

    __slots__ = ()

    @property
    def unsent(self) -> bool:
        """
        Whether later requests wait: also for the replies to a request that writes, because a part may be sent again.
        """
        return super().unsent or (self._inFlight > 0 and not self.command.idempotent)

    def place(self, part: Part) -> None:
        """
        Choose the primary that gets a part: the same one, or one that gets no other part, if that is none any more.
        """
        primaries = self.session.router.pools
        if part.pool not in primaries:
            taken = [each.pool for each in self._divided]
            part.pool = next((pool for pool in primaries if pool not in taken), part.pool)

    def declined(self, part: Any) -> None:
        """
        A node has not executed a part.
        """
        self._notExecuted(part, lambda trail: None if trail.postpone() else part.refusal)
