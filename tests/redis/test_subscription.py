# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.subscription}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.redis.cases import RedisTestCase
from txconnpool.errors import PoolClosed
from txconnpool.redis import InvalidArgument, Message, NoPermission, Subscription
from txconnpool.redis.subscription import BUFFERED


class SubscriptionTests(RedisTestCase):
    """
    Tests for L{Subscription}.
    """

    def enter(self, *channels: str, **options: Any) -> Subscription[bytes]:
        subscription = self.pool.subscribe(*channels, **options)
        entered = Deferred.fromCoroutine(subscription.__aenter__())
        self.flush()
        self.successResultOf(entered)
        return subscription

    def leave(self, subscription: Subscription[bytes]) -> None:
        self.successResultOf(Deferred.fromCoroutine(subscription.__aexit__(None, None, None)))
        self.flush()

    def result(self, answer: Deferred[Any]) -> Any:
        self.flush()
        return self.successResultOf(answer)

    def next(self, subscription: Subscription[bytes]) -> Deferred[Message[bytes]]:
        answer = Deferred.fromCoroutine(subscription.__anext__())
        self.flush()
        return answer

    def test_messages(self) -> None:
        """
        The messages of channels and patterns are received in order.
        """
        subscription = self.enter("a", "b", patterns=["p*"])
        waiting = self.next(subscription)
        self.assertNoResult(waiting)
        for channel in ("a", "x", "pq", "b"):
            self.pool.publish(channel, channel * 2)
        self.flush()
        self.assertEqual(self.successResultOf(waiting), Message("message", b"a", b"aa"))
        self.assertEqual(self.successResultOf(self.next(subscription)), Message("pmessage", b"pq", b"pqpq", b"p*"))
        self.assertEqual(self.successResultOf(self.next(subscription)), Message("message", b"b", b"bb"))
        self.leave(subscription)
        self.assertEqual([client for client in self.data.connections if client.channels], [])
        self.assertEqual(self.pool.stats.busy, 0)

    def test_reconnected(self) -> None:
        """
        If the connection is lost, the channels are subscribed again, and a message says so.
        """
        subscription = self.enter("a")
        waiting = self.next(subscription)
        self.lose()
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(waiting), Message("reconnected"))
        self.pool.publish("a", "1")
        self.assertEqual(self.successResultOf(self.next(subscription)), Message("message", b"a", b"1"))
        self.leave(subscription)

    def test_down(self) -> None:
        """
        While there is no server, another connection is asked for again and again.
        """
        subscription = self.enter("a")
        waiting = self.next(subscription)
        self.server.refuse()
        self.lose()
        self.clock.advance(60)
        self.assertNoResult(waiting)
        self.server.accept()
        self.clock.advance(60)
        self.assertEqual(self.successResultOf(waiting), Message("reconnected"))
        self.leave(subscription)

    def test_slow(self) -> None:
        """
        While many messages wait to be read, the connection is not read.
        """
        subscription = self.enter("a")
        for number in range(BUFFERED * 2):
            self.pool.publish("a", number)
            self.flush()
        self.assertLess(len(subscription._messages), BUFFERED + 60)
        for number in range(BUFFERED * 2):
            self.assertEqual(self.successResultOf(self.next(subscription)).data, b"%d" % number)
        self.leave(subscription)

    def test_closed(self) -> None:
        """
        The iteration fails when the pool is closed.
        """
        subscription = self.enter("a")
        waiting = self.next(subscription)
        self.pool.abort()
        self.flush()
        self.failureResultOf(waiting, PoolClosed)
        self.leave(subscription)

    def test_slotMoved(self) -> None:
        """
        When the node says that it has lost the slot of the channels, they are subscribed again.
        """
        subscription = self.enter("a")
        waiting = self.next(subscription)
        self.server.connections[-1].send(b">3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n")
        self.flush()
        self.assertEqual(self.successResultOf(waiting), Message("reconnected"))
        self.pool.publish("a", "1")
        self.assertEqual(self.successResultOf(self.next(subscription)), Message("message", b"a", b"1"))
        self.assertEqual(self.pool.stats.violations, 0)
        self.leave(subscription)

    def test_nothing(self) -> None:
        """
        A subscription needs a channel or a pattern. A text is no list of patterns.
        """
        self.assertRaises(InvalidArgument, self.pool.subscribe)
        self.assertRaises(InvalidArgument, self.pool.subscribe, patterns="news.*")

    def test_sharded(self) -> None:
        """
        Sharded channels are subscribed with another command. They have no patterns.
        """
        self.result(self.pool.ping())
        self.server.hold()
        entered = Deferred.fromCoroutine(self.pool.subscribe("a", "b", sharded=True).__aenter__())
        self.flush()
        (connection,) = self.server.connections
        self.assertIn(b"*3\r\n$10\r\nSSUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n", connection.received)
        connection.send(b">3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$10\r\nssubscribe\r\n$1\r\nb\r\n:2\r\n")
        self.flush()
        subscription = self.successResultOf(entered)
        connection.send(b">3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\nx\r\n")
        self.flush()
        message = self.successResultOf(self.next(subscription))
        self.assertEqual(message[:3], ("smessage", b"a", b"x"))
        self.leave(subscription)
        self.assertRaises(InvalidArgument, self.pool.subscribe, "a", patterns=["b"], sharded=True)

    def test_refused(self) -> None:
        """
        If the server refuses the subscription, its block is not entered, and its connection is closed.
        """
        self.result(self.pool.ping())
        self.server.hold()
        entered = Deferred.fromCoroutine(self.pool.subscribe("a").__aenter__())
        self.flush()
        (connection,) = self.server.connections
        connection.send(b"-NOPERM no permission to access the channel\r\n")
        self.flush()
        self.failureResultOf(entered, NoPermission)
        self.assertEqual((self.server.connections, self.pool.stats.busy), ([], 0))

    def test_afterBlock(self) -> None:
        """
        After the block, the messages that have arrived can still be read, and then there are no more.
        """
        subscription = self.enter("a")
        self.result(self.pool.publish("a", "x"))
        self.leave(subscription)
        self.assertEqual(self.successResultOf(self.next(subscription)).data, b"x")
        self.failureResultOf(self.next(subscription), StopAsyncIteration)
