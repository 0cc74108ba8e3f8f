# -*- test-case-name: tests.redis.test_pipeline -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Several commands that are sent together: pipelines and transactions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Final, Self

from twisted.internet.defer import Deferred, fail

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
    errorOf,
)
from txconnpool.redis.sending import settle
from txconnpool.redis.splitting import join, wordsFor
from txconnpool.redis.units import Step, Unit, askLeased, discard
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.several import elements
from txconnpool.wire.redis.topology import readRedirect
from txconnpool.wire.topology import Redirect

_MULTI, _EXEC, _WATCH, _UNWATCH = (BY_NAME[name] for name in ("multi", "exec", "watch", "unwatch"))
_QUEUED: Final = b"+QUEUED\r\n"


class QueuedResult(Deferred[Any]):
    """
    The result of a command of a pipeline or transaction. Until the command was sent, awaiting the result is an error:
    the code that would have to send the command is waiting itself, so the result would never come.

    @ivar sent: whether the command was sent.
    """

    sent = False

    def __await__(self) -> Generator[Deferred[Any], None, Any]:
        """
        @raise InvalidArgument: the command was not sent.
        """
        self._checkSent()
        return super().__await__()

    def __iter__(self) -> Generator[Deferred[Any], None, Any]:
        """
        As L{__await__}, for C{yield from}.
        """
        self._checkSent()
        return super().__iter__()

    def _checkSent(self) -> None:
        if not self.sent and not self.called:
            raise InvalidArgument(
                "the command was not sent: commands of a pipeline or transaction are sent at the end of its async with "
                "block, so await the result after it, or use results"
            )


class Queue(RedisCommands[V]):
    """
    Collects commands. The Deferred of each fires when its reply has come. Until they are sent, it must not be awaited.

    @ivar results: what L{send} has resulted in.
    """

    def __init__(
        self,
        namespace: bytes,
        meanings: Meanings,
        sender: Any,
    ) -> None:
        """
        @param sender: a L{Sender<txconnpool.redis.sending.Sender>}.
        """
        self._namespace = namespace
        self._meanings = meanings
        self._sender = sender
        self._steps: list[tuple[Any, Step]] = []
        self._answers: list[QueuedResult] = []  # the result of each command, which may have several requests
        self.results: list[Any] = []

    def _send(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Deferred[Any]:
        try:
            if mayBlock(words, command):
                raise InvalidArgument(f"{command.name} may block, and would keep the commands after it waiting")
            divided = self._divide(command, words)
            target = None if divided else self._sender.route(command, words)
        except PoolError as error:
            return fail(error)
        if divided:
            joined = Deferred.fromCoroutine(self._joined(command, words, divided, convert))
            answer = QueuedResult(lambda _: joined.cancel())
            joined.chainDeferred(answer)
        else:
            answer = QueuedResult()
            self._add(target, command, words, self._meanings.of(convert, command), answer)
        self._answers.append(answer)
        return answer

    def _divide(self, command: RedisCommand, words: list[bytes]) -> dict[Any, list[int]]:
        """
        @return: the positions of the keys of a request, by target, if it is divided.
        """
        return {}

    def _released(self) -> list[QueuedResult]:
        """
        Allow to await the results of all commands, because these are sent now.

        @return: the results.
        """
        answers, self._answers = self._answers, []
        for answer in answers:
            answer.sent = True
        return answers

    def _add(
        self,
        target: Any,
        command: RedisCommand,
        words: list[bytes],
        meaning: Callable[[bytes], Any],
        result: Deferred[Any] | None = None,
    ) -> Deferred[Any]:
        used = command.unblocked if command.mayBlock else command
        step = Step(used, encode(words), meaning, self._sender.keysOf(command, words), result)
        self._steps.append((target, step))
        return step.result

    async def _joined(
        self, command: RedisCommand, words: list[bytes], divided: dict[Any, list[int]], convert: Convert
    ) -> Any:
        """
        Add one request for each of several targets.

        @return: the result of all.
        """
        value = self._meanings.of(None, command)
        waiting = [
            self._add(target, command, wordsFor(command, words, places), value) for target, places in divided.items()
        ]
        found = join(command, list(divided.values()), await settle(waiting))
        return found if convert is None else convert(found)

    def __len__(self) -> int:
        return len(self._steps)


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

    def _divide(self, command: RedisCommand, words: list[bytes]) -> dict[Any, list[int]]:
        return self._sender.divide(command, words)  # type: ignore[no-any-return]

    async def send(self) -> list[Any]:
        """
        Send all commands, and wait for their results.

        @return: the results, in the order of the commands; also in C{results}.

        @raise PoolError: the error of the first command that has failed. The others were executed nevertheless.
        """
        queued, self._steps = self._steps, []
        answers = self._released()
        self._sender.sendSteps(queued)
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
        self._pool: Any = None  # that of the connection
        self._home: Any = None  # the target of all commands
        self._accepted = False  # whether the server has accepted a command with keys
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
            self._checkHome(self._sender.route(command, words))
        except PoolError as error:
            return fail(error)
        return askLeased(self._connection, command, encode(words), self._meanings.of(convert, command))

    def _checkHome(self, target: Any) -> None:
        if self._home is None:
            self._home = target
        elif target is not None and not self._sender.together(target, self._home):
            raise CrossSlot(
                "CROSSSLOT Keys in request don't hash to the same slot: several servers have those of a transaction"
            )

    async def __aenter__(self) -> Self:
        if self._watch:
            words = [b"WATCH", *(each.encode() if isinstance(each, str) else each for each in self._watch)]
            self._home = self._sender.route(_WATCH, words)
            await self._beginWatch(self._sender.journey(self._home), encode(words))
        return self

    async def _beginWatch(self, journey: Any, data: bytes) -> None:
        while True:
            pool, connection = await journey.lease()
            try:
                await askLeased(connection, _WATCH, data, self._meanings.value)
            except BaseException as error:
                discard(pool, connection)
                if not (isinstance(error, ResponseError) and await journey.follow(error)):
                    raise
            else:
                self._pool, self._connection = pool, connection
                return

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            if kind is None and self._steps:
                await self._executeShared()
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
                self._pool.release(connection)
            else:
                discard(self._pool, connection)

    @staticmethod
    async def _sendLeased(connection: Connection, steps: list[Step]) -> None:
        Unit(None, steps).granted(connection.record)

    async def _executeShared(self) -> None:
        """
        Execute the commands on a connection with others. If the server has executed none, because it cannot now, or
        because another one has the keys, they are sent again.
        """
        for target, _ in self._steps:
            self._checkHome(target)
        journey = self._sender.journey(self._home)

        async def again(error: ResponseError) -> bool:
            cause = self._cause(error)
            return cause is not None and await journey.follow(cause)

        await self._execute(journey.send, again)

    def _cause(self, error: ResponseError) -> ResponseError | None:
        """
        @param error: the reply to C{EXEC}: nothing was executed.

        @return: the error that says why.
        """
        cause: Any = error
        if isinstance(error, ExecAborted):
            cause = error.__cause__ or errorOf(str(error).partition("because of: ")[2])
        if not isinstance(cause, ResponseError):
            return None
        redirect = cause.redirect
        if redirect is None:  # EXEC has no keys, but a node looks at those of the transaction, and no script has run
            redirect = readRedirect(_WATCH, b"", b"-%b\r\n" % str(cause).encode("utf-8", "backslashreplace"), 0)
        if redirect is not None and redirect.once and self._accepted:
            # Some keys have moved, and some have not: the other node would make new ones in their place.
            redirect = Redirect(redirect, redirect.command, redirect.request)
        cause.redirect = redirect
        return cause

    async def _execute(
        self,
        send: Callable[[list[Step]], Awaitable[None]],
        again: Callable[[ResponseError], Awaitable[bool]] | None = None,
    ) -> None:
        """
        Send the commands between C{MULTI} and C{EXEC}, and give each its result.

        @param send: sends them.
        @param again: called with the reply to C{EXEC}, if nothing was executed. Returns whether they are sent again.
        """
        queued = [step for _, step in self._steps]
        for target, _ in self._steps:
            self._checkHome(target)
        self._released()
        while True:
            sent = self._between(queued)
            try:
                await send(sent)
                replies = await self._collect(sent)
            except BaseException as error:
                for step in sent:
                    step.result.addErrback(lambda _: None)  # those that nobody has waited for
                failed = error
                if again is not None and isinstance(error, ResponseError):
                    try:
                        if await again(error):
                            continue
                    except PoolError as other:
                        failed = other
                if isinstance(failed, PoolError):
                    _failAll(queued, failed)
                if failed is error:
                    raise
                raise failed from error
            break
        for step, reply in zip(queued, replies, strict=True):
            step.answer(reply)
        self.results = await settle([step.result for step in queued])

    def _between(self, queued: list[Step]) -> list[Step]:
        value = self._meanings.value
        sent = [Step(_MULTI, encode([b"MULTI"]), value)]
        sent += [Step(step.command, step.data, self._queued, step.keys) for step in queued]
        sent.append(Step(_EXEC, encode([b"EXEC"]), _whole))
        return sent

    async def _collect(self, sent: list[Step]) -> list[bytes]:
        """
        @return: the replies in the reply to C{EXEC}.

        @raise PoolError: nothing was executed, or the connection was lost.
        """
        rejected: ResponseError | None = None
        self._accepted = False
        for step in sent[:-1]:
            try:
                await step.result
                self._accepted = self._accepted or bool(step.keys)
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
