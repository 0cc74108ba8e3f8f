# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.subscriptions}, beyond those of L{tests.wire.redis.test_requestreader}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.redis.clients import request
from txconnpool.wire import TOPICS
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.subscriptions import topicOf
from txconnpool.wire.topics import Topic


class TopicTests(SynchronousTestCase):
    """
    Tests for the topics of messages and requests.
    """

    def test_messages(self) -> None:
        """
        The topic of a message is its channel, or its pattern; other frames have none.
        """
        for mark in (b"*", b">"):
            for words, topic in (
                ([b"message", b"c", b"x"], Topic("subscribe", b"c")),
                ([b"pmessage", b"c*", b"c", b"x"], Topic("psubscribe", b"c*")),
                ([b"smessage", b"c", b"x"], Topic("ssubscribe", b"c")),
                ([b"message", b"", b""], Topic("subscribe", b"")),
                ([b"message", b"a\r\nb", b"x"], Topic("subscribe", b"a\r\nb")),
                ([b"invalidate", b"c", b"x"], None),
            ):
                self.assertEqual(topicOf(mark + encode(words)[1:]), topic)

    def test_requests(self) -> None:
        """
        Topics of one kind are one request.
        """
        dialect = Redis()
        topics = [Topic("psubscribe", b"a*"), Topic("psubscribe", b"b*")]
        self.assertEqual(dialect.topicRequest(True, topics), (BY_NAME["psubscribe"], request("PSUBSCRIBE a* b*")))
        self.assertEqual(dialect.topicRequest(False, topics), (BY_NAME["punsubscribe"], request("PUNSUBSCRIBE a* b*")))

    def test_keys(self) -> None:
        """
        Messages of patterns and events of keys come from all servers, others from that of their channel.
        """
        for kind, name, key in (
            ("subscribe", b"c", b"c"),
            ("ssubscribe", b"__key", b"__key"),
            ("psubscribe", b"c*", None),
            ("subscribe", b"__keyevent@0__:del", None),
        ):
            self.assertEqual(Redis().topicKey(Topic(kind, name)), key)

    def test_keysOfCluster(self) -> None:
        """
        The nodes of a cluster pass on all messages to each other, but not the events of keys.
        """
        dialect = Redis()
        dialect.cluster(True)
        for kind, name, key in (
            ("subscribe", b"c", b"c"),
            ("psubscribe", b"c*", b"c*"),
            ("psubscribe", b"__keyspace@0__:c*", None),
            ("subscribe", b"__keyevent@0__:del", None),
        ):
            self.assertEqual(dialect.topicKey(Topic(kind, name)), key)

    def test_silent(self) -> None:
        """
        A client that gets no replies gets confirmations, which are pushed, but no errors.
        """
        reader = Redis().requestReader()
        for text, error in (("subscribe a", b"-NOPERM x\r\n"), ("client reply off", b""), ("subscribe b", b"")):
            what, _, _, payload = reader.read(request(text), 0, 1)
            if what is TOPICS:
                self.assertEqual(payload.refused(b"-NOPERM x\r\n"), error)
        self.assertEqual(payload.confirmed(), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:1\r\n")

    def test_counts(self) -> None:
        """
        Channels and patterns are counted together, sharded channels separately, and each once.
        """
        reader = Redis().requestReader()

        def counts(text: str) -> list[bytes]:
            _, _, _, payload = reader.read(request(text), 0, 1)
            reply: bytes = payload.confirmed()
            return reply.split(b"\r\n:")[1:]

        self.assertEqual([each[:1] for each in counts("subscribe a b a")], [b"1", b"2", b"2"])
        self.assertEqual([each[:1] for each in counts("psubscribe a")], [b"3"])
        self.assertEqual([each[:1] for each in counts("ssubscribe a")], [b"1"])
        self.assertEqual([each[:1] for each in counts("unsubscribe x a")], [b"3", b"2"])
        self.assertEqual([each[:1] for each in counts("sunsubscribe")], [b"0"])
