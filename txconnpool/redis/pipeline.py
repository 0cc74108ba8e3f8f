# -*- test-case-name: tests.redis.test_pipeline -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Several commands that are sent together: pipelines and transactions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txconnpool.errors import PoolError
from txconnpool.pool.connection import Connection
from txconnpool.redis.arguments import Key, mayBlock
from txconnpool.redis.base import Convert, Meanings, V
from txconnpool.redis.commands import RedisCommands
from txconnpool.redis.errors import (
    CrossSlot,
    ExecAborted,
    InvalidArgument,
    ResponseError,
    UndecodableReply,
    WatchError,
)
from txconnpool.redis.splitting import join, requestFor
from txconnpool.redis.units import Step, Unit, askLeased, discard
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.several import elements

_MULTI, _EXEC, _WATCH, _UNWATCH = (BY_NAME[name] for name in ("multi", "exec", "watch", "unwatch"))
_QUEUED: Final = b"+QUEUED\r\n"


def _undivided(command: RedisCommand, words: list[bytes]) -> dict[Any, list[int]]:
    return {}


class Queue(RedisCommands[V]):
    """
    Collects commands. The Deferred of each fires when its reply has come.

    @ivar results: what L{send} has resulted in.
    """

    def __init__(
        self,
        namespace: bytes,
        meanings: Meanings,
        route: Callable[[RedisCommand, list[bytes]], Any],
        divide: Callable[[RedisCommand, list[bytes]], dict[Any, list[int]]] = _undivided,
    ) -> None:
        """
        @param route: finds the pool of a request, whose keys get the namespace.
        @param divide: finds the positions of the keys of a request, by pool, if several servers have them.
        """
        self._namespace = namespace
        self._meanings = meanings
        self._route = route
        self._divide = divide
        self._steps: list[tuple[Any, Step]] = []
        self._answers: list[Deferred[Any]] = []  # the result of each command, which may have several requests
        self.results: list[Any] = []

    def _send(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Deferred[Any]:
        try:
            if mayBlock(words, command):
                raise InvalidArgument(f"{command.name} may block, and would keep the commands after it waiting")
            divided = self._divide(command, words)
            pool = None if divided else self._route(command, words)
        except PoolError as error:
            return fail(error)
        if divided:
            answer = Deferred.fromCoroutine(self._joined(command, words, divided, convert))
        else:
            answer = self._add(pool, command, encode(words), self._meanings.of(convert, command))
        self._answers.append(answer)
        return answer

    def _add(self, pool: Any, command: RedisCommand, data: bytes, meaning: Callable[[bytes], Any]) -> Deferred[Any]:
        step = Step(command.unblocked if command.mayBlock else command, data, meaning)
        self._steps.append((pool, step))
        return step.result

    async def _joined(
        self, command: RedisCommand, words: list[bytes], divided: dict[Any, list[int]], convert: Convert
    ) -> Any:
        """
        Add one request for each of several servers.

        @return: the result of all.
        """
        value = self._meanings.of(None, command)
        waiting = [
            self._add(pool, command, requestFor(command, words, places), value) for pool, places in divided.items()
        ]
        found = join(command, list(divided.values()), await settle(waiting))
        return found if convert is None else convert(found)

    def __len__(self) -> int:
        return len(self._steps)


def _observed(result: Deferred[Any]) -> Deferred[Any]:
    """
    @return: fires as C{result} does, which keeps its value for the caller of the command. An error is not reported as
        unhandled then.
    """
    seen: Deferred[Any] = Deferred()

    def got(value: Any) -> Any:
        seen.callback(value)
        return value

    result.addCallbacks(got, seen.errback)
    return seen


async def settle(waiting: list[Deferred[Any]]) -> list[Any]:
    """
    Wait for the results of requests that were sent.

    @return: the results, in order.

    @raise PoolError: the first of the errors. All requests have ended then.
    """
    results: list[Any] = []
    error: Failure | None = None
    for result in waiting:
        try:
            results.append(await _observed(result))
        except Exception:
            error = error or Failure()
    if error is not None:
        error.raiseException()
    return results


class Pipeline(Queue[V]):
    """
    Commands that are sent together and executed in order::

        async with pool.pipeline() as pipe:
            pipe.incr("visits")
            pipe.get("name")
        visits, name = pipe.results

    They are sent at the end of the block, or by L{send}. If several servers share the keys, those for one server are
    sent together, and executed in order there. Other requests may be executed between them: L{Transaction} prevents
    this.
    """

    async def send(self) -> list[Any]:
        """
        Send all commands, and wait for their results.

        @return: the results, in the order of the commands; also in C{results}.

        @raise PoolError: the error of the first command that has failed. The others were executed nevertheless.
        """
        queued, self._steps = self._steps, []
        answers, self._answers = self._answers, []
        byPool: dict[Any, list[Step]] = {}
        for pool, step in queued:
            byPool.setdefault(pool, []).append(step)
        for pool, steps in byPool.items():
            Unit(pool, steps).send()
        self.results = await settle(answers)
        return self.results

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.send()
        self._steps, self._answers = [], []


class Transaction(Queue[V]):
    """
    Commands that are executed together, with nothing between them, and only if no watched key was changed::

        async with pool.transaction("balance") as block:
            balance = int(await block.get("balance") or 0)      # executed at once, because the key is watched
            block.multi()
            block.set("balance", balance - 10)
            block.rpush("log", "10")
        _, length = block.results

    Without keys to watch, L{multi} is not needed, and the commands are sent on a connection with those of others. They
    are executed at the end of the block. If the block raises, none is.
    """

    def __init__(self, *arguments: Any, watch: tuple[Key, ...]) -> None:
        """
        @param watch: the keys.
        @param arguments: see L{Queue.__init__}.
        """
        super().__init__(*arguments)
        self._watch = watch
        self._connection: Connection | None = None
        self._home: Any = None
        self._queueing = not watch

    def multi(self) -> None:
        """
        Collect the commands from now on, instead of executing them at once.
        """
        self._queueing = True

    def _send(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Deferred[Any]:
        if self._queueing:
            return super()._send(command, words, convert)
        if self._connection is None:
            return fail(InvalidArgument("a transaction that watches keys is used in its block only"))
        try:
            self._checkHome(self._route(command, words))
        except PoolError as error:
            return fail(error)
        return askLeased(self._connection, command, encode(words), self._meanings.of(convert, command))

    def _checkHome(self, pool: Any) -> None:
        if self._home is None:
            self._home = pool
        elif pool is not self._home:
            raise CrossSlot(
                "CROSSSLOT Keys in request don't hash to the same slot: several servers have those of a transaction"
            )

    async def __aenter__(self) -> Self:
        if self._watch:
            words = [b"WATCH", *(each.encode() if isinstance(each, str) else each for each in self._watch)]
            self._home = self._route(_WATCH, words)
            connection = await self._home.acquire()
            try:
                await askLeased(connection, _WATCH, encode(words), self._meanings.value)
            except BaseException:
                discard(self._home, connection)
                raise
            self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            if kind is None and self._steps:
                await self._execute(lambda steps: Unit(self._home, steps).send())
            self._steps = []
            return
        clean = False
        try:
            if kind is None and self._steps:
                await self._execute(lambda steps: self._sendLeased(connection, steps))
                clean = True
            elif kind is None:
                await askLeased(connection, _UNWATCH, encode([b"UNWATCH"]), self._meanings.value)
                clean = True
        except (WatchError, ResponseError, UndecodableReply):
            clean = True  # EXEC has ended the watch
            raise
        finally:
            self._steps = []
            if clean:
                self._home.release(connection)
            else:
                discard(self._home, connection)

    @staticmethod
    def _sendLeased(connection: Connection, steps: list[Step]) -> None:
        Unit(None, steps).granted(connection.record)

    async def _execute(self, send: Callable[[list[Step]], None]) -> None:
        """
        Send the commands between C{MULTI} and C{EXEC}, and give each its result.
        """
        queued = [step for _, step in self._steps]
        for pool, _ in self._steps:
            self._checkHome(pool)
        value = self._meanings.value
        sent = [Step(_MULTI, encode([b"MULTI"]), value)]
        sent += [Step(step.command, step.data, self._queued) for step in queued]
        sent.append(Step(_EXEC, encode([b"EXEC"]), _whole))
        send(sent)
        try:
            replies = await self._collect(sent)
        except BaseException as error:
            for step in sent:
                step.result.addErrback(lambda _: None)  # those that nobody has waited for
            if isinstance(error, PoolError):
                _failAll(queued, error)
            raise
        for step, reply in zip(queued, replies, strict=True):
            step.answer(reply)
        self.results = await settle([step.result for step in queued])

    async def _collect(self, sent: list[Step]) -> list[bytes]:
        """
        @return: the replies in the reply to C{EXEC}.

        @raise PoolError: nothing was executed, or the connection was lost.
        """
        rejected: ResponseError | None = None
        for step in sent[:-1]:
            try:
                await step.result
            except ResponseError as error:
                rejected = rejected or error
        try:
            return self._replies(await sent[-1].result)
        except ResponseError as error:
            raise error from rejected

    def _queued(self, reply: bytes) -> None:
        if reply != _QUEUED:
            self._meanings.value(reply)

    def _replies(self, reply: bytes) -> list[bytes]:
        if reply[:1] == b"*" and reply[:2] != b"*-":
            return elements(reply)
        if reply[:1] in b"*_":
            raise WatchError("a watched key was changed: nothing was executed")
        error = self._meanings.parser.parse(reply)
        raise error if isinstance(error, ResponseError) else ExecAborted("the reply to EXEC is no array")


def _whole(reply: bytes) -> bytes:
    return reply


def _failAll(steps: list[Step], error: PoolError) -> None:
    for step in steps:
        if not step.result.called:
            step.result.addErrback(lambda _: None)
            step.result.errback(error)
