# -*- test-case-name: tests.redis.test_subscription -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Subscriptions: the messages of channels, as an asynchronous iterator.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Self

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.pool.connection import Connection
from txconnpool.redis.base import Meanings, V
from txconnpool.redis.errors import ResponseError, UndecodableReply
from txconnpool.redis.units import askLeased, discard
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.framing import encode

_log = Logger("txconnpool.pool")

#: The number of messages that wait to be read, above which the connection is not read. The server then closes it when
#: its own buffer is full (C{client-output-buffer-limit pubsub}).
BUFFERED: Final = 1000


class Message(NamedTuple, Generic[V]):
    """
    A message, or the notice that some may be missing::

        async for message in subscription:
            if message.kind == "reconnected":
                refresh()
            else:
                print(message.channel, message.data)

    @ivar kind: C{"message"}, C{"pmessage"} of a pattern, C{"smessage"} of a sharded channel, or C{"reconnected"}: the
        connection was lost, or the slot of the channels has another node; they are subscribed again now, and what was
        published meanwhile is missing.
    @ivar channel: the channel; C{None} if C{kind} is C{"reconnected"}.
    @ivar data: the message; C{None} if C{kind} is C{"reconnected"}.
    @ivar pattern: the pattern that the channel matches, if C{kind} is C{"pmessage"}.
    """

    kind: str
    channel: V | None = None
    data: V | None = None
    pattern: V | None = None


class Subscription(Generic[V]):
    """
    The messages of channels::

        async with pool.subscribe("news", patterns=["weather.*"]) as messages:
            async for message in messages:
                print(message.channel, message.data)

    When the block is entered, the channels are subscribed. They have a connection of the pool until the block is left,
    which is closed then. If the connection is lost, another one is taken, and the channels are subscribed again: then
    there is a message of the kind C{"reconnected"}.
    """

    def __init__(
        self,
        sender: Any,
        target: Any,
        meanings: Meanings,
        channels: list[bytes],
        patterns: list[bytes],
        sharded: bool,
        retryDelay: float,
    ) -> None:
        """
        @param sender: a L{Sender<txconnpool.redis.sending.Sender>}; C{target} is what it calls so.
        @param retryDelay: the seconds until another connection is asked for, if there is none.
        """
        self._sender = sender
        self._target = target
        self._pool: Any = None  # that of the connection
        self._meanings = meanings
        self._requests = [
            (BY_NAME[name.decode().lower()], encode([name, *words]))
            for name, words in ((b"SSUBSCRIBE" if sharded else b"SUBSCRIBE", channels), (b"PSUBSCRIBE", patterns))
            if words
        ]
        self._retryDelay = retryDelay
        self._messages: deque[Message[V] | UndecodableReply] = deque()
        self._connection: Connection | None = None
        self._paused = False
        self._wake: Deferred[None] | None = None
        self._error: Exception | None = None
        self._running: Deferred[None] | None = None
        self._lost: Deferred[None] | None = None

    # -- The connection

    def pushed(self, data: bytes) -> None:
        """
        The server has sent a frame that no request asked for.
        """
        try:
            frame = self._meanings.parser.parse(b"*" + data[1:])
        except UnicodeDecodeError as error:
            self._add(UndecodableReply(f"a message is not valid in {error.encoding}: {error.reason}"))
            return
        kind = frame[0] if isinstance(frame[0], str) else frame[0].decode("ascii", "replace")
        if kind == "pmessage":
            self._add(Message(kind, frame[2], frame[3], frame[1]))
        elif kind in ("message", "smessage"):
            self._add(Message(kind, frame[1], frame[2]))
        elif kind == "sunsubscribe":  # the slot of the channels has got another node
            self._connectionEnded()

    def connectionLost(self, error: PoolError) -> None:
        """
        The leased connection was lost.
        """
        self._connectionEnded()

    def abort(self, error: PoolError) -> None:
        """
        Subscribe again on another connection, because of an unexpected exception: a message may be missing.
        """
        self._connectionEnded()

    def _connectionEnded(self) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost.callback(None)

    async def _subscribe(self) -> None:
        journey = self._sender.journey(self._target)
        while True:
            pool, connection = await journey.lease()
            self._pool, self._connection, self._paused, self._lost = pool, connection, False, Deferred()
            connection.lease = self
            try:
                for command, data in self._requests:
                    await askLeased(connection, command, data, self._confirmed)
            except BaseException as error:
                self._leave()
                if not (isinstance(error, ResponseError) and await journey.follow(error)):
                    raise
            else:
                return

    def _confirmed(self, reply: bytes) -> None:
        if reply[:1] == b"-":
            self._meanings.value(reply)

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.lease = None
            discard(self._pool, connection)

    async def _run(self) -> None:
        """
        Subscribe again whenever the connection is lost.
        """
        while True:
            if self._lost is not None:
                await self._lost
            self._leave()
            try:
                await self._subscribe()
            except PoolError as error:
                if isinstance(error, PoolClosed | ResponseError) and not getattr(error, "redirect", None):
                    self._end(error)
                    return
                _log.info("{pool}: cannot subscribe: {error}", pool=self._pool.name, error=error)
                await self._pause()
            else:
                self._add(Message("reconnected"))

    def _pause(self) -> Deferred[None]:
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._pool.reactor.callLater(self._retryDelay, done.callback, None)
        return done

    def _end(self, error: Exception) -> None:
        self._error = error
        self._notify()

    # -- The messages

    def _add(self, message: Message[V] | UndecodableReply) -> None:
        self._messages.append(message)
        if len(self._messages) >= BUFFERED and not self._paused and self._connection is not None:
            self._paused = True
            self._connection.transport.pauseProducing()
        self._notify()

    def _notify(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[V]:
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._running is None:
                raise StopAsyncIteration
            self._wake = Deferred()
            await self._wake
        message = self._messages.popleft()
        if self._paused and len(self._messages) <= BUFFERED // 2 and self._connection is not None:
            self._paused = False
            self._connection.transport.resumeProducing()
        if isinstance(message, UndecodableReply):
            raise message
        return message

    async def __aenter__(self) -> Self:
        await self._subscribe()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda failure: failure.trap(CancelledError) and None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        self._leave()
        self._notify()
