# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.topics}.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire.topics import Ask, Hub, Topic

A, B, C = (Topic("channel", name) for name in (b"a", b"b", b"c"))
P = Topic("pattern", b"p")


class _Request:
    """
    A request, as far as L{Hub} needs it.
    """

    flavour = ()
    adds = True
    topics = ()

    def confirmed(self) -> bytes:
        return b"done"

    def refused(self, reply: bytes) -> bytes:
        return reply


class HubTests(SynchronousTestCase):
    """
    Tests for L{Hub}: frames are the names of their topics.
    """

    def setUp(self) -> None:
        """
        Make a hub.
        """
        self.hub = Hub(
            lambda reply: reply[:1] == b"-",
            lambda frame: Topic("channel", frame) if frame else None,
            endedOf=lambda frame: Topic("channel", frame[4:]) if frame.startswith(b"end ") else None,
        )

    def join(self, client: str, *topics: Topic) -> Ask:
        """
        @return: a request of a client for topics.
        """
        ask = Ask(client, _Request())
        ask.shares[self.hub] = list(topics)
        self.hub.join(ask, topics)
        return ask

    def confirm(self, reply: bytes = b"ok") -> list[Any]:
        """
        Let the server reply to the oldest step, and settle the requests that are complete.

        @return: the clients of the requests that are over.
        """
        asks = self.hub.replied(reply)
        for ask in asks:
            if ask.error:
                self.hub.cancel(ask, ask.shares[self.hub])
            else:
                self.hub.settle(ask, ask.shares[self.hub])
        return [ask.client for ask in asks]

    def sent(self) -> list[tuple[str, ...]]:
        """
        @return: what was to be sent since the last call.
        """
        steps, self.hub.outgoing = self.hub.outgoing, []
        return [("+" if adds else "-", *(topic.name.decode() for topic in topics)) for adds, topics in steps]

    def follow(self, client: str, *topics: Topic) -> None:
        """
        Let a client get the frames of topics.
        """
        if self.join(client, *topics).steps:
            self.confirm()
        else:
            self.fail("it was known")
        self.sent()

    def test_first(self) -> None:
        """
        The server is asked for the first client only. Nobody gets frames before it has confirmed.
        """
        one, two = self.join("one", A), self.join("two", A, B)
        self.assertEqual(self.sent(), [("+", "a"), ("+", "b")])
        self.assertEqual((self.hub.clientsOf(b"a"), one.over, two.over), ([], False, False))
        self.assertEqual(self.confirm(), ["one"])
        self.assertEqual(self.hub.clientsOf(b"a"), ["one"])
        self.assertEqual(self.confirm(), ["two"])
        self.assertEqual((self.hub.clientsOf(b"a"), self.hub.clientsOf(b"b")), (["one", "two"], ["two"]))
        three = self.join("three", B)
        self.assertEqual((three.over, self.sent(), len(self.hub)), (True, [], 2))
        self.assertEqual((self.hub.clientsOf(b"x"), self.hub.clientsOf(b"")), ([], []))

    def test_redirected(self) -> None:
        """
        If another server has the topics of a step, all requests that wait for them are to be made again. One that ends
        topics is over then.
        """
        one, two, three = self.join("one", A), self.join("two", A, B), self.join("three", C)
        self.assertEqual(self.sent(), [("+", "a"), ("+", "b"), ("+", "c")])
        self.assertEqual(self.hub.redirected(), (True, [one, two]))
        self.assertEqual((one.over, len(self.hub)), (True, 2))
        self.hub.cancel(two, two.shares[self.hub])
        self.assertEqual(self.confirm(), [])
        self.assertEqual((self.confirm(), self.sent()), (["three"], [("-", "b")]))
        self.assertEqual(self.hub.redirected(), (False, []))
        ask = Ask("three", _Request())
        self.hub.leave("three", [C], ask)
        self.assertEqual(self.hub.redirected(), (False, [ask]))
        self.assertTrue(three.over and ask.over and self.hub.unused)

    def test_ended(self) -> None:
        """
        If a server sends no more about a topic, its clients are known, and so are the requests of those who wait for
        further topics. Nothing is known of a topic that nobody wants, or that the server was asked for since.
        """
        self.follow("one", A)
        two = self.join("two", A, B)
        self.assertEqual(self.sent(), [("+", "b")])
        for frame in (b"end x", b"a", b"", b"end b"):
            self.assertIsNone(self.hub.ended(frame))
        self.assertEqual(self.hub.ended(b"end a"), (A, ["one"], [two]))
        self.assertEqual((self.hub.ended(b"end a"), self.hub.clientsOf(b"a"), len(self.hub)), (None, [], 1))

    def test_last(self) -> None:
        """
        When the last client has left, the server is asked to stop, and the client waits for that.
        """
        self.follow("one", A, B)
        self.hub.settle(two := self.join("two", A), [A])
        self.assertTrue(two.over)
        ask = Ask("one", _Request())
        self.hub.leave("one", [A], ask)
        self.assertEqual((ask.over, self.sent(), self.hub.clientsOf(b"a")), (True, [], ["two"]))
        ask = Ask("two", _Request())
        self.hub.leave("two", [A], ask)
        self.assertEqual((ask.over, self.sent(), self.hub.clientsOf(b"a")), (False, [("-", "a")], []))
        self.assertEqual(self.hub.replied(b"ok"), [ask])
        self.assertEqual((len(self.hub), self.hub.waits, self.hub.unused), (1, False, False))

    def test_kinds(self) -> None:
        """
        A step has topics of one kind.
        """
        self.follow("one", A, B)
        self.follow("one", P)
        self.hub.leave("one", [A, P, B])
        self.assertEqual(self.sent(), [("-", "a", "b"), ("-", "p")])
        self.assertTrue(self.hub.unused)

    def test_again(self) -> None:
        """
        A topic whose end was just requested is requested again.
        """
        self.follow("one", A)
        self.hub.leave("one", [A])
        self.join("two", A)
        self.assertEqual(self.sent(), [("-", "a"), ("+", "a")])
        self.assertEqual(self.confirm(), [])
        self.assertEqual(self.hub.clientsOf(b"a"), [])
        self.assertEqual(self.confirm(), ["two"])
        self.assertEqual(self.hub.clientsOf(b"a"), ["two"])

    def test_refused(self) -> None:
        """
        Only the client that wants what the server does not send gets its error. For others the rest is asked for again,
        each by itself.
        """
        one, two, three = self.join("one", A, B), self.join("two", A), self.join("three", B, C)
        self.assertEqual(self.sent(), [("+", "a", "b"), ("+", "c")])
        self.assertEqual(self.confirm(b"-b is not allowed"), ["one"])
        self.assertEqual((one.error, two.error, three.error), (b"-b is not allowed", b"", b""))
        self.assertEqual(self.sent(), [("+", "a"), ("+", "b")])
        self.assertEqual(self.confirm(), [])  # c
        self.assertEqual(self.confirm(), ["two"])
        self.assertEqual(self.confirm(b"-b is not allowed"), ["three"])
        self.assertEqual((three.error, self.hub.clientsOf(b"a")), (b"-b is not allowed", ["two"]))
        self.assertEqual(self.sent(), [("-", "c")])
        self.assertEqual((self.confirm(), len(self.hub)), ([], 1))

    def test_cancelled(self) -> None:
        """
        A client that is gone before the server has confirmed is not waited for. What others want as well goes on.
        """
        one, two = self.join("one", A, B), self.join("two", A)
        self.hub.cancel(one, [A, B])
        self.assertEqual(self.sent(), [("+", "a", "b")])
        self.assertFalse(self.hub.unused)
        self.assertEqual(self.confirm(), ["two"])
        self.assertEqual((two.error, self.sent(), self.hub.clientsOf(b"a")), (b"", [("-", "b")], ["two"]))

    def test_nobody(self) -> None:
        """
        If all are gone before the server has confirmed, the hub is of no use any more.
        """
        self.hub.cancel(self.join("one", A), [A])
        self.assertEqual((self.hub.unused, self.hub.waits), (True, True))
        self.assertEqual(self.confirm(), [])
        self.assertEqual(self.sent(), [("+", "a"), ("-", "a")])

    def test_lost(self) -> None:
        """
        When the connection is lost, all requests fail, and the clients are known that get no frames any more.
        """
        self.follow("one", A)
        self.follow("three", C)
        two, leaving = self.join("two", A, B), Ask("three", _Request())
        self.hub.leave("three", [C], leaving)
        asks, clients = self.hub.lose(b"-lost")
        self.assertEqual((asks, clients), ([two, leaving], ["one"]))
        self.assertEqual((two.error, leaving.error), (b"-lost", b"-lost"))
        self.assertEqual((len(self.hub), self.sent(), self.hub.unused), (0, [], True))
        self.hub.leave("one", [A])
        self.hub.cancel(two, [A, B])
        self.assertEqual(self.sent(), [])

    def test_random(self) -> None:
        """
        Whatever clients do: each gets the frames of what it was confirmed, and the server sends what somebody wants.
        """
        topics = [Topic("channel", b"%d" % number) for number in range(4)]
        for seed in range(200):
            chance = random.Random(seed)
            self.setUp()
            server: set[Topic] = set()
            steps: list[tuple[bool, list[Topic]]] = []
            wants: dict[int, set[Topic]] = {client: set() for client in range(4)}
            asks: dict[int, Ask] = {}
            denied = {chance.choice(topics)} if chance.random() < 0.5 else set()
            for _ in range(60):
                client = chance.randrange(4)
                some = chance.sample(topics, chance.randint(1, 3))
                if client in asks:
                    if chance.random() < 0.1:
                        self.hub.cancel(asks.pop(client), topics)
                        self.hub.leave(client, wants[client])
                        wants[client] = set()
                elif chance.random() < 0.6:
                    fresh = [topic for topic in some if topic not in wants[client]]
                    ask = asks[client] = Ask(client, _Request())
                    ask.shares[self.hub] = fresh
                    self.hub.join(ask, fresh)
                    self._end(asks, wants, [ask] if ask.over else [])
                else:
                    left = [topic for topic in some if topic in wants[client]]
                    self.hub.leave(client, left)
                    wants[client] -= set(left)
                steps += self.hub.outgoing
                self.hub.outgoing = []
                if steps and chance.random() < 0.7:
                    self._serve(steps, server, denied, asks, wants)
            while steps:
                self._serve(steps, server, denied, asks, wants)
            self.assertEqual((asks, self.hub.waits), ({}, False), seed)
            self.assertEqual(server, set().union(*wants.values()), seed)
            for topic in topics:
                expected = {client for client, its in wants.items() if topic in its}
                self.assertEqual(set(self.hub.clientsOf(topic.name)), expected, seed)

    def _serve(
        self, steps: list[tuple[bool, list[Topic]]], server: set[Topic], denied: set[Topic], asks: Any, wants: Any
    ) -> None:
        """
        Let the server do the oldest step.
        """
        adds, its = steps.pop(0)
        isDenied = adds and not denied.isdisjoint(its)
        if adds and not isDenied:
            server.update(its)
        elif not adds:
            server.difference_update(its)
        self._end(asks, wants, self.hub.replied(b"-denied" if isDenied else b"ok"))
        steps += self.hub.outgoing
        self.hub.outgoing = []

    def _end(self, asks: dict[int, Ask], wants: dict[int, set[Topic]], over: list[Ask]) -> None:
        """
        End requests of clients.
        """
        for ask in over:
            its = ask.shares[self.hub]
            del asks[ask.client]
            if ask.error:
                self.hub.cancel(ask, its)
            else:
                self.hub.settle(ask, its)
                wants[ask.client] |= set(its)
