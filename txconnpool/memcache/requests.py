# -*- test-case-name: tests.memcache.test_requests -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What a memcached client has on the wire, and who waits for it: requests that wait for a connection with room, are sent,
and tell their callers what the reply means.

A reply belongs to a request, whoever still waits: a caller that gave up is told nothing, and nobody else is told in its
stead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.protocols.memcache import ClientError, ServerError
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError, WireError
from txconnpool.interfaces import IReplySink, IWaiter
from txconnpool.memcache.errors import NoSuchCommand
from txconnpool.pool.connection import InFlight, isRetryable
from txconnpool.pool.decisions.records import Record
from txconnpool.wire import Command
from txconnpool.wire.memcache.replies import GATS, GETS, values

#: A key: bytes as memcached knows it, or text, whose UTF-8 it is.
Key = str | bytes

#: What C{get} and the like answer: flags and value, with the identifier for C{checkAndSet} between them if wanted.
Value = tuple[Any, ...]

_MISS: Final = (0, None)
_MISS_WITH_IDENTIFIER: Final = (0, b"", None)

_OUTCOMES: Final = {
    **dict.fromkeys((b"STORED\r\n", b"DELETED\r\n", b"TOUCHED\r\n", b"OK\r\n"), True),
    **dict.fromkeys((b"NOT_STORED\r\n", b"EXISTS\r\n", b"NOT_FOUND\r\n"), False),
}


def refusal(reply: bytes) -> Exception:
    """
    The exception that an error line stands for.
    """
    word, _, text = reply.decode("utf-8", "backslashreplace").rstrip().partition(" ")
    kind = {"SERVER_ERROR": ServerError, "CLIENT_ERROR": ClientError}.get(word, NoSuchCommand)
    return kind(text or "the server does not know the command")


def outcome(reply: bytes) -> bool:
    """
    Whether it was done.
    """
    done = _OUTCOMES.get(reply)
    if done is None:
        raise refusal(reply)
    return done


def counted(reply: bytes) -> int:
    """
    A number, or C{False}.
    """
    return int(reply) if reply[:1].isdigit() else outcome(reply)


def version(reply: bytes) -> bytes:
    """
    What stands after the word.
    """
    word, _, version = reply.rstrip().partition(b" ")
    if word != b"VERSION":
        raise refusal(reply)
    return version


def statistics(reply: bytes) -> dict[bytes, bytes]:
    """
    Values by their names.
    """
    lines = reply.split(b"\r\n")[:-1]
    last = lines.pop()
    if last not in (b"END", b"RESET", b"OK"):
        raise refusal(reply)
    return {words[1]: b" ".join(words[2:]) for words in (line.split(b" ", 2) for line in lines)}


@implementer(IWaiter, IReplySink)
class Request:
    """
    One request on the wire.

    @ivar command: the command of its reply.
    @ivar ticket: its place among the waiters, if it has waited.
    """

    __slots__ = ("_again", "_parts", "_pool", "command", "ticket")

    def __init__(self, pool: Any, command: Command) -> None:
        self._pool = pool
        self.command = command
        self.ticket: Any = None
        self._parts: list[bytes] | None = None
        self._again = False

    def encode(self) -> bytes:
        """
        @return: the bytes to send; none if nobody waits for the reply any more.
        """
        raise NotImplementedError

    def answer(self, reply: bytes) -> None:
        """
        Here is the reply.
        """
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """
        There will be no reply.
        """
        raise NotImplementedError

    def granted(self, record: Record) -> None:
        """
        Send it.
        """
        data = self.encode()
        if data:
            record.connection.send(self, self.command, 1, data, False)
        else:
            self._pool.hasCapacity(record)

    def refused(self, error: PoolError) -> None:
        """
        There is no connection for it.
        """
        self.fail(error)

    def forget(self) -> None:
        """
        Nobody waits for it any more. If it was sent, its reply will come and be dropped.
        """
        if self.ticket is not None:
            self._pool.forget(self.ticket)

    def replied(self, data: bytes, done: int) -> None:
        """
        Keep what comes until it is complete.
        """
        if done and not self._parts:
            self.answer(data)
            return
        if self._parts is None:
            self._parts = []
        self._parts.append(data)
        if done:
            self.answer(b"".join(self._parts))

    def requestsLost(self, requests: list[InFlight], begun: bool, error: PoolError) -> None:
        """
        The connection was lost: a read is tried once more.
        """
        self._parts = None
        if isRetryable(self.command, error) and not self._again:
            self._again = True
            self._pool.counters.retries += 1
            self._pool.send(self)
        else:
            self.fail(error)


class SingleRequest(Request):
    """
    A request of one caller. It is the canceller of its own result.

    @ivar result: fires with what the reply means.
    """

    __slots__ = ("_data", "_meaning", "result")

    def __init__(self, pool: Any, command: Command, data: bytes, meaning: Callable[[bytes], Any]) -> None:
        super().__init__(pool, command)
        self._data = data
        self._meaning = meaning
        self.result: Deferred[Any] = Deferred(self)

    def __call__(self, result: Deferred[Any]) -> None:
        """
        The caller gives up.
        """
        self.forget()

    def encode(self) -> bytes:
        """
        @return: the bytes it was made with.
        """
        return b"" if self.result.called else self._data

    def answer(self, reply: bytes) -> None:
        """
        Tell the caller what it means.
        """
        if not self.result.called:
            try:
                meaning = self._meaning(reply)
            except Exception:
                self.result.errback(Failure())
            else:
                self.result.callback(meaning)

    def fail(self, error: Exception) -> None:
        """
        Tell the caller, if there is one.
        """
        if not self.result.called:
            self.result.errback(error)


class Retrieval(Request):
    """
    A request for the values of several keys, each for a caller of its own.

    @ivar callers: by key, who waits for its value: a C{Deferred} or what has its C{called}, C{callback} and C{errback}.
    """

    __slots__ = ("_thinned", "_word", "callers")

    def __init__(self, pool: Any, command: Command, word: bytes) -> None:
        super().__init__(pool, command)
        self._word = word
        self._thinned = False
        self.callers: dict[bytes, Any] = {}

    def cancelled(self, caller: Deferred[Any]) -> None:
        """
        A caller gives up.
        """
        caller.errback(CancelledError())
        self.thin()

    def thin(self) -> None:
        """
        Somebody does not wait any more, and perhaps nobody does.
        """
        self._thinned = True
        if all(caller.called for caller in self.callers.values()):
            self.forget()

    def encode(self) -> bytes:
        """
        @return: a request for the keys whose callers still wait.
        """
        if self._thinned:
            self.callers = {key: caller for key, caller in self.callers.items() if not caller.called}
            self._thinned = False
            if not self.callers:
                return b""
        return b"%b %b\r\n" % (self._word, b" ".join(self.callers))

    def answer(self, reply: bytes) -> None:
        """
        Tell each caller its value.
        """
        if not reply.startswith((b"VALUE ", b"END")):
            self.fail(refusal(reply))
            return
        callers = self.callers
        for key, flags, value, cas in values(reply):
            caller = callers.pop(key, None)
            if caller is None:
                self.fail(ConnectionLostInFlight("upstream protocol error: another key's value"))
                raise WireError("the value of a key that was not asked for")
            if not caller.called:
                caller.callback((flags, value) if cas is None else (flags, b"%d" % cas, value))
        miss = _MISS_WITH_IDENTIFIER if self.command in (GETS, GATS) else _MISS
        for caller in callers.values():
            if not caller.called:
                caller.callback(miss)

    def fail(self, error: Exception) -> None:
        """
        Tell all who still wait.
        """
        for caller in self.callers.values():
            if not caller.called:
                caller.errback(error)


class Together:
    """
    Several callers who want the same.
    """

    __slots__ = ("callers",)

    def __init__(self, *callers: Any) -> None:
        self.callers = list(callers)

    @property
    def called(self) -> bool:
        """
        Whether nobody waits any more.
        """
        callers = self.callers
        while callers and callers[-1].called:  # once for each, however often this is asked
            callers.pop()
        return not callers

    def callback(self, value: Value) -> None:
        """
        Tell all who still wait.
        """
        for caller in self.callers:
            if not caller.called:
                caller.callback(value)

    def errback(self, error: Exception) -> None:
        """
        Tell all who still wait.
        """
        for caller in self.callers:
            if not caller.called:
                caller.errback(error)


class Gathering:
    """
    A caller who waits for several values at once.

    @ivar result: fires with the values, by the keys as they were given.
    @ivar retrievals: the requests that are to bring them.
    """

    __slots__ = ("_left", "_values", "result", "retrievals")

    def __init__(self, keys: Iterable[Key]) -> None:
        self.result: Deferred[dict[Key, Value]] = Deferred(self._cancelled)
        self.retrievals: set[Retrieval] = set()
        self._values: dict[Key, Any] = dict.fromkeys(keys)
        self._left = len(self._values)

    def came(self, key: Key, value: Value) -> None:
        """
        One of them.
        """
        self._values[key] = value
        self._left -= 1
        if not self._left:
            self.result.callback(self._values)

    def fail(self, error: Exception) -> None:
        """
        One of them will not come, so the others are of no use.
        """
        self.result.errback(error)
        for retrieval in self.retrievals:
            retrieval.thin()

    def _cancelled(self, result: Deferred[dict[Key, Value]]) -> None:
        self.fail(CancelledError())


class Part:
    """
    One of the values that a L{Gathering} waits for.
    """

    __slots__ = ("_key", "_whole")

    def __init__(self, whole: Gathering, key: Key) -> None:
        self._whole = whole
        self._key = key

    @property
    def called(self) -> bool:
        """
        Whether nobody waits for it any more.
        """
        return bool(self._whole.result.called)

    def callback(self, value: Value) -> None:
        """
        Here it is.
        """
        self._whole.came(self._key, value)

    def errback(self, error: Exception) -> None:
        """
        It will not come.
        """
        self._whole.fail(error)
