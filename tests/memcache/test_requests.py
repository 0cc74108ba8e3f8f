# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.requests}: errors, cancelled calls and lost connections.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.protocols.memcache import ClientError, ServerError

from tests.bugs import covers
from tests.memcache.cases import HELLO, ScriptedTestCase
from txconnpool import errors
from txconnpool.errors import ConnectionLostInFlight, PoolClosed, PoolTimeout, ServerUnavailable
from txconnpool.memcache import MemCachePool, NoSuchCommand
from txconnpool.testing import finish


class ErrorTests(ScriptedTestCase):
    """
    Error replies and protocol errors.
    """

    def test_errors(self) -> None:
        """
        Error replies are the exceptions of MemCacheProtocol, with the server's text.
        """
        calls: list[Callable[[], Deferred[Any]]] = [
            lambda: self.pool.get("k"),
            lambda: self.pool.gets("k"),
            lambda: self.pool.getMultiple([*"k"]),
            lambda: self.pool.getAndTouch("k", 1),
            lambda: self.pool.increment("k"),
            lambda: self.pool.touch("k", 1),
            lambda: self.pool.delete("k"),
            self.pool.flushAll,
            self.pool.version,
            self.pool.serverStats,
        ]
        for call in calls:
            for line, kind, text in (
                (b"SERVER_ERROR out of memory\r\n", ServerError, "out of memory"),
                (b"CLIENT_ERROR bad \xff\r\n", ClientError, "bad \\xff"),
                (b"ERROR\r\n", NoSuchCommand, "the server does not know the command"),
            ):
                answer = call()
                self.reply(line)
                self.assertEqual(str(self.failureResultOf(answer, kind).value), text)
        self.assertEqual(len(self.server.connections), 1)

    def test_storage(self) -> None:
        """
        A value that cannot be stored is a C{ServerError}.
        """
        for call in (self.pool.set, self.pool.add, self.pool.replace, self.pool.append, self.pool.prepend):
            answer = call("k", b"v")
            self.reply(b"SERVER_ERROR object too large for cache\r\n")
            error = self.failureResultOf(answer, ServerError).value
            self.assertEqual(str(error), "object too large for cache")

    def test_allOfARequest(self) -> None:
        """
        An error reply fails all calls whose keys were in the request.
        """
        answers = [self.pool.get("a"), self.pool.get("b"), self.pool.get("a"), self.pool.getMultiple([*"cd"])]
        self.reply(b"SERVER_ERROR out of memory\r\n")
        for answer in answers:
            self.failureResultOf(answer, ServerError)

    def test_notTheKey(self) -> None:
        """
        A reply with the value of a key that was not requested closes the connection, and no caller gets that value.
        """
        answers = [self.pool.get("a"), self.pool.get("b")]
        self.flush()
        later = self.pool.delete("c")
        self.reply(b"VALUE a 0 1\r\n1\r\nVALUE c 0 1\r\n3\r\nEND\r\n")
        self.assertEqual(self.successResultOf(answers[0]), (0, b"1"))
        self.failureResultOf(answers[1], ConnectionLostInFlight)
        self.failureResultOf(later, ConnectionLostInFlight)
        self.assertEqual((self.server.connections, self.pool.counters.violations), ([], 1))

    def test_anyOrder(self) -> None:
        """
        A server may send the values of one request in any order, some of them or all.
        """
        for count in range(4):
            for order in permutations("abc", count):
                single = [self.pool.get(key) for key in "abc"]
                several = self.pool.getMultiple(["a", "b", "c"], withIdentifier=True)
                plain = b"".join(b"VALUE %b 0 1\r\n%b\r\n" % (key.encode(), key.encode()) for key in order)
                unique = b"".join(b"VALUE %b 0 1 7\r\n%b\r\n" % (key.encode(), key.encode()) for key in order)
                self.reply(plain + b"END\r\n" + unique + b"END\r\n")
                expected = {key: key.encode() if key in order else None for key in "abc"}
                self.assertEqual(self.results(single), [(0, value) for value in expected.values()])
                self.assertEqual({key: value for key, (_, _, value) in self.successResultOf(several).items()}, expected)
        self.assertEqual(self.pool.counters.violations, 0)

    def test_notAReply(self) -> None:
        """
        A reply that does not belong to the request closes the connection.
        """
        answer = self.pool.set("a", b"1")
        self.reply(b"DELETED\r\n")
        self.failureResultOf(answer, ConnectionLostInFlight)
        self.assertEqual((self.server.connections, self.pool.counters.violations), ([], 1))

    def test_handshake(self) -> None:
        """
        By default a connection is used when the server has replied to C{version}; if it replies with an error, the dial
        has failed.
        """
        pool = MemCachePool(self.server, 1, self.clock, whenDown=1)
        answer = pool.get("k")
        self.assertEqual(self.received(), HELLO)
        self.reply(b"VERSION 1.6.18\r\n")
        self.assertEqual(self.received(), b"get k\r\n")
        self.reply(b"END\r\n")
        self.assertEqual(self.successResultOf(answer), (0, None))
        finish(pool)
        answer = pool.get("k")
        self.failureResultOf(answer, PoolClosed)
        pool = MemCachePool(self.server, 1, self.clock, whenDown=1)
        answer = pool.get("k")
        self.reply(b"ERROR Too many open connections\r\n")
        self.failureResultOf(answer, ServerUnavailable)
        finish(pool)

    def test_pieces(self) -> None:
        """
        A reply may arrive in pieces of any size.
        """
        value = b"\r\nEND\r\nVALUE a 0 1\r\n"
        reply = b"VALUE a 1 1\r\nx\r\nVALUE b 2 %d\r\n%b\r\nEND\r\n" % (len(value), value)
        for size in (1, 2, 3, 10, 50):
            answer = self.pool.getMultiple([*"abc"])
            for start in range(0, len(reply), size):
                self.assertNoResult(answer)
                self.reply(reply[start : start + size])
            self.assertEqual(self.successResultOf(answer), {"a": (1, b"x"), "b": (2, value), "c": (0, None)})
            answers = self.pool.serverStats()
            for byte in b"STAT a 1 2\r\nSTAT b \r\nSTAT c\r\nEND\r\n":
                self.reply(b"%c" % byte)
            self.assertEqual(self.successResultOf(answers), {b"a": b"1 2", b"b": b"", b"c": b""})


class CancelTests(ScriptedTestCase):
    """
    A call may be cancelled at any time: if it was not sent yet, it never is; otherwise its reply is dropped.
    """

    def cancel(self, answer: Deferred[Any]) -> None:
        answer.cancel()
        self.failureResultOf(answer, CancelledError)

    def test_getOfThisTurn(self) -> None:
        """
        A key whose callers have all cancelled is not sent at the end of the turn.
        """
        kept, dropped = self.pool.get("a"), self.pool.get("b")
        both = [self.pool.get("c"), self.pool.get("c")]
        whole = self.pool.getMultiple([*"cde"])
        self.cancel(dropped)
        self.cancel(both[0])
        self.cancel(whole)
        self.assertEqual(self.received(), b"get a c\r\n")
        self.reply(b"VALUE c 0 1\r\n3\r\nEND\r\n")
        self.assertEqual((self.successResultOf(kept), self.successResultOf(both[1])), ((0, None), (0, b"3")))

    def test_allOfThisTurn(self) -> None:
        """
        If all calls of a turn are cancelled, nothing is sent and the connection stays idle.
        """
        self.pool.version()
        self.reply(b"VERSION 1\r\n")
        self.received()
        self.cancel(self.pool.get("a"))
        self.assertEqual(self.received(), b"")
        self.assertEqual((self.pool.stats.idle, self.pool.stats.inFlight), (1, 0))
        answer = self.pool.get("b")
        self.assertEqual(self.received(), b"get b\r\n")
        self.reply(b"END\r\n")
        self.assertEqual(self.successResultOf(answer), (0, None))

    def test_idleAfterNothing(self) -> None:
        """
        A connection on which a request was not sent in the end is closed when it was idle for long enough.
        """
        self.pool.version()
        self.reply(b"VERSION 1\r\n")
        self.cancel(self.pool.get("a"))
        self.flush()
        self.clock.advance(600)
        self.flush()
        self.assertEqual(self.server.connections, [])

    def test_waiting(self) -> None:
        """
        A cancelled call does not wait for a connection any more.
        """
        self.server.hang()
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.set("a", b"1"), self.pool.getMultiple([*"bc"])]
        answers.append(self.pool.gets("d"))
        self.flush()
        self.assertEqual(self.pool.stats.waiting, 3)
        for left, answer in zip((3, 2, 1, 0), answers, strict=True):
            self.cancel(answer)
            self.assertEqual(self.pool.stats.waiting, left)
        self.server.accept()
        self.assertEqual(self.received(), b"")

    @covers("4")
    def test_inFlight(self) -> None:
        """
        The reply to a call cancelled in flight is dropped; the next call gets its own reply.
        """
        calls: list[tuple[Callable[[], Deferred[Any]], bytes]] = [
            (lambda: self.pool.get("a"), b"VALUE a 0 1\r\n1\r\nEND\r\n"),
            (lambda: self.pool.getMultiple([*"ab"]), b"VALUE a 0 1\r\n1\r\nEND\r\n"),
            (lambda: self.pool.get("a"), b"END\r\n"),
            (lambda: self.pool.get("a"), b"SERVER_ERROR\r\n"),
            (lambda: self.pool.increment("a"), b"2\r\n"),
            (lambda: self.pool.increment("a"), b"CLIENT_ERROR\r\n"),
            (self.pool.serverStats, b"STAT a 1\r\nEND\r\n"),
        ]
        for call, reply in calls:
            answer = call()
            self.flush()
            self.cancel(answer)
            after = self.pool.get("a")
            self.reply(reply + b"VALUE a 0 1\r\n9\r\nEND\r\n")
            self.assertEqual(self.successResultOf(after), (0, b"9"))

    def test_lost(self) -> None:
        """
        A call cancelled in flight is not sent again when its connection is lost.
        """
        kept, dropped, whole = self.pool.get("a"), self.pool.get("b"), self.pool.getMultiple([*"cd"])
        command = self.pool.version()
        self.flush()
        self.assertIn(b"get a b c d\r\n", self.received())
        for answer in (dropped, whole, command):
            self.cancel(answer)
        self.lose()
        self.assertEqual(self.received(), b"get a\r\n")
        self.reply(b"END\r\n")
        self.assertEqual(self.successResultOf(kept), (0, None))

    @covers("6")
    def test_fromACallback(self) -> None:
        """
        The callback of one call may cancel another call of the same request.
        """
        answers = [self.pool.get(key) for key in "abc"]
        failed: list[Any] = []
        answers[2].addErrback(lambda failure: failed.append(failure.value))
        answers[0].addCallback(lambda _: answers[2].cancel())
        self.reply(b"VALUE a 0 1\r\n1\r\nVALUE c 0 1\r\n3\r\nEND\r\n")
        self.assertEqual(self.successResultOf(answers[1]), (0, None))
        self.assertEqual([type(each) for each in failed], [CancelledError])


class LossTests(ScriptedTestCase):
    """
    Connections that are lost, late or unavailable.
    """

    settings = {"whenDown": 1}

    def test_reads(self) -> None:
        """
        Reads are tried once more, on a new connection.
        """
        answers: list[Deferred[Any]] = [self.pool.getMultiple([*"ab"]), self.pool.version(), self.pool.serverStats()]
        self.assertEqual(self.received(), b"version\r\nstats\r\nget a b\r\n")
        self.server.connections[0].send(b"VERSION 1\r\nSTAT a 1\r\n")
        self.flush()
        self.lose()
        self.assertEqual(self.received(), b"stats\r\nget a b\r\n")
        self.reply(b"STAT b 1\r\nEND\r\nVALUE b 0 1\r\n2\r\nEND\r\n")
        self.assertEqual(self.results(answers), [{"a": (0, None), "b": (0, b"2")}, b"1", {b"b": b"1"}])
        self.assertEqual(self.pool.counters.retries, 2)

    @covers("14")
    def test_inTheMiddle(self) -> None:
        """
        A partial reply is discarded, and the whole request is sent again.
        """
        answers = [self.pool.get("a"), self.pool.get("b")]
        self.reply(b"VALUE a 0 1\r\n1\r\nVALUE b 0 9\r\n123")
        self.lose()
        self.assertEqual(self.received(), b"get a b\r\n")
        self.reply(b"VALUE b 0 1\r\n2\r\nEND\r\n")
        self.assertEqual(self.results(answers), [(0, None), (0, b"2")])

    def test_twice(self) -> None:
        """
        A read fails when its second connection is lost too.
        """
        answers = [self.pool.get("a"), self.pool.get("b"), self.pool.getMultiple([*"abc"])]
        for _ in range(2):
            self.assertEqual(self.received(), b"get a b c\r\n")
            self.lose()
        for answer in answers:
            self.failureResultOf(answer, ConnectionLostInFlight)

    def test_writes(self) -> None:
        """
        Writes are never sent twice.
        """
        pool = self.pool
        calls: list[Callable[[], Deferred[Any]]] = [
            *(lambda call=call: call("k", b"1") for call in (pool.set, pool.add, pool.replace)),
            *(lambda call=call: call("k", b"1") for call in (pool.append, pool.prepend)),
            lambda: pool.checkAndSet("k", b"1", b"1"),
            *(lambda call=call: call("k") for call in (pool.increment, pool.decrement, pool.delete)),
            *(lambda call=call: call("k", 1) for call in (pool.touch, pool.getAndTouch)),
            pool.flushAll,
        ]
        for call in calls:
            answer = call()
            self.assertNotEqual(self.received(), b"")
            self.lose()
            error = self.failureResultOf(answer, ConnectionLostInFlight).value
            self.assertTrue(error.sent)
            self.clock.advance(10)
        self.assertEqual(self.pool.counters.retries, 0)

    @covers("2")
    def test_late(self) -> None:
        """
        A late reply closes the connection and fails all requests in flight on it; nothing is sent again.
        """
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.delete("a")]
        self.flush()
        self.clock.advance(4.9)
        self.assertEqual([answer.called for answer in answers], [False, False])
        self.clock.advance(0.1)
        self.flush()
        for answer in answers:
            self.assertEqual(self.failureResultOf(answer, PoolTimeout).value.phase, "request")
        self.assertEqual((self.pool.counters.requestTimeouts, self.pool.counters.retries), (1, 0))
        self.assertEqual(self.server.connections, [])

    def test_slow(self) -> None:
        """
        A large value over a slow link is not late while its bytes keep coming, for C{replyTimeout} at most.
        """
        for seconds, found in (50, True), (70, False):
            answer = self.pool.get("a")
            self.reply(b"VALUE a 0 100\r\n")
            for _ in range(seconds // 5):
                self.clock.advance(4.9)
                if self.server.connections:
                    self.reply(b"x" * (500 // seconds))
            if found:
                self.reply(b"\r\nEND\r\n")
                self.assertEqual(self.successResultOf(answer), (0, b"x" * 100))
            else:
                self.failureResultOf(answer, PoolTimeout)

    def test_refused(self) -> None:
        """
        When no server can be reached, all waiting calls fail with the reason.
        """
        self.server.refuse()
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.get("b"), self.pool.getMultiple([*"cd"])]
        answers += [self.pool.set("a", b"1"), self.pool.flushAll()]
        self.flush()
        for answer in answers:
            error = self.failureResultOf(answer, ServerUnavailable).value
            self.assertIn("connection refused", str(error))
        self.failureResultOf(self.pool.delete("a"), ServerUnavailable)
        answer = self.pool.get("a")
        self.flush()
        self.failureResultOf(answer, ServerUnavailable)

    def test_noConnection(self) -> None:
        """
        A call that waits too long for a connection fails.
        """
        pool = MemCachePool(self.server, 1, self.clock, connectTimeout=None, waitTimeout=2.0)
        self.server.hang()
        answers: list[Deferred[Any]] = [pool.get("a"), pool.set("a", b"1")]
        self.flush()
        self.clock.advance(2)
        for answer in answers:
            self.assertEqual(self.failureResultOf(answer, PoolTimeout).value.phase, "wait")
        finish(pool)

    def test_tooMany(self) -> None:
        """
        The number of waiting requests is limited; all keys of a turn count as one request.
        """
        pool = MemCachePool(self.server, 1, self.clock, maxWaiting=1, batchSize=3)
        self.server.hang()
        whole = pool.getMultiple([*"abcdefghi"])
        self.failureResultOf(whole, errors.PoolFull)
        self.assertEqual(pool.stats.waiting, 0)
        answers = [pool.get(key) for key in "abc"]
        self.assertEqual(pool.stats.waiting, 1)
        self.failureResultOf(pool.delete("a"), errors.PoolFull)
        done = pool.close()
        for answer in answers:
            self.failureResultOf(answer, PoolClosed)
        self.flush()
        self.successResultOf(done)

    def test_depth(self) -> None:
        """
        The number of requests in flight on a connection is limited; others are sent as replies arrive.
        """
        pool = MemCachePool(self.server, 1, self.clock, configure=None, pipelineDepth=2)
        answers = [pool.delete(key) for key in "abcde"]
        self.assertEqual(self.received(), b"delete a\r\ndelete b\r\n")
        self.reply(b"DELETED\r\n")
        self.assertEqual(self.received(), b"delete c\r\n")
        self.reply(b"DELETED\r\nNOT_FOUND\r\n")
        self.reply(b"DELETED\r\nDELETED\r\n")
        self.assertEqual(self.results(answers), [True, True, False, True, True])
        finish(pool)
