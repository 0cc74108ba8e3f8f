# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.scatter}: requests for several keys, some of whose servers fail, are slow, or have very
large values.
"""

from __future__ import annotations

import itertools
import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients import get
from tests.memcached import Line, QueuedLine, answer
from tests.pipes import Pipe
from tests.proxy.test_sharding import ShardedTestCase
from tests.stage import ShardedStage
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.scatter import FIRST
from txconnpool.routing.maps import Ejection
from txconnpool.wire.memcache.classic import PART_KEYS

REFUSED = b"SERVER_ERROR upstream unavailable: connection refused (server1)\r\n"

#: A request for so many keys that it is sent as several, and its keys.
MANY = [b"short%d" % number for number in range(3 * PART_KEYS)]
REQUEST = b"get %b\r\n" % b" ".join(MANY)


class ScatterCase(ShardedTestCase):
    """
    Base class of these tests.
    """

    def down(self, stage: ShardedStage, number: int = 1) -> None:
        """
        Let a server be down.
        """
        stage.servers[number].mode = "refuse"
        for line in stage.servers[number].lines:
            line.lose()
        stage.turns()

    def line(self, stage: ShardedStage, number: int) -> Line:
        """
        @return: the connection to a server.
        """
        return stage.servers[number].open[0]

    def found(self, reply: bytes) -> list[bytes]:
        """
        @return: the keys in the reply to a get, which is checked.
        """
        keys = re.findall(rb"VALUE ((?:short|large|a)[0-9]+) ", reply)
        wanted = list(dict.fromkeys(keys))
        self.assertEqual(reply, answer(b"get %b\r\n" % b" ".join(wanted))[0] if wanted else b"END\r\n")
        return wanted

    def assertNothingHeld(self, stage: ShardedStage) -> None:
        """
        Assert that no bytes count as held.
        """
        self.assertEqual(stage.unread.total, 0)
        for session in stage.sessions.sessions:
            self.assertEqual((session.held, session.unread), (0, 0))


class ManyKeysTests(ScatterCase):
    """
    Tests for requests for very many keys, which are sent as several.
    """

    def setUp(self) -> None:
        """
        Choose the keys that are not on the second server.
        """
        self.others = [key for number, key in enumerate(MANY) if number % 3 != 1]

    def test_down(self) -> None:
        """
        The keys of a server that is down are misses, or the request has one error. The client goes on.
        """
        for partialError in (False, True):
            stage = self.sharded(sessionLimits=SessionLimits(partialError=partialError))
            self.down(stage)
            client = stage.client()
            reply = stage.ask(client, REQUEST + b"get a0\r\n")
            if partialError:
                self.assertEqual(reply, REFUSED + get(b"a0"))
            else:
                self.assertTrue(reply.endswith(b"END\r\n" + get(b"a0")))
                self.assertEqual(self.found(reply[: -len(get(b"a0"))]), self.others)
            self.assertTrue(client.connected)
            self.assertNothingHeld(stage)

    def halfway(self, stage: ShardedStage, client: Pipe) -> bytes:
        """
        Let the client receive the first values, and the second server be down after that.

        @return: what it received.
        """
        client.send(REQUEST)
        stage.turns()
        for number in range(3):
            self.line(stage, number).deliver()
        stage.turns()
        first = client.take()
        self.down(stage)
        stage.serve()
        return first

    def test_halfway(self) -> None:
        """
        A server goes down when a part of the reply was passed on: its other keys are misses.
        """
        stage = self.sharded()
        client = stage.client()
        first = self.halfway(stage, client)
        self.assertEqual(len(re.findall(rb"VALUE ", first)), PART_KEYS)
        expected = [key for number, key in enumerate(MANY) if number < PART_KEYS or number % 3 != 1]
        self.assertEqual(self.found(first + client.take()), expected)
        self.assertEqual(stage.ask(client, b"get a0\r\n"), get(b"a0"))
        self.assertNothingHeld(stage)

    def test_halfwayError(self) -> None:
        """
        If that must be an error, the client is closed: it has received a part of the reply already.
        """
        stage = self.sharded(sessionLimits=SessionLimits(partialError=True))
        client = stage.client()
        self.halfway(stage, client)
        stage.turns()
        self.assertFalse(client.connected)
        self.assertEqual(stage.sessions.sessions, {})
        self.assertEqual(stage.unread.total, 0)

    def test_halfwayBehind(self) -> None:
        """
        If an earlier reply is still due, nothing was passed on: the whole reply is the error, and the client gets the
        replies before and after it.
        """
        stage = self.sharded(sessionLimits=SessionLimits(partialError=True, maxInFlight=PART_KEYS + 10))
        client = stage.client()
        self.widen(stage, client)
        client.take()
        others = [key for number, key in enumerate(MANY) if number % 3]
        client.send(b"get a0\r\nget %b\r\nget a2\r\n" % b" ".join(others))
        stage.turns()
        for number in (1, 2):
            self.line(stage, number).deliver()
        stage.turns()
        self.assertGreater(stage.unread.total, 0)
        self.down(stage)
        self.line(stage, 2).deliver()
        stage.turns()
        self.assertEqual((client.connected, client.take()), (True, b""))
        stage.serve()
        self.assertEqual(client.take(), get(b"a0") + REFUSED + get(b"a2"))
        self.assertNothingHeld(stage)

    def firstRound(self, stage: ShardedStage, client: Pipe) -> int:
        """
        Let a client send the request, and receive the reply.

        @return: the number of keys that are requested at first.
        """
        client.take()
        for line in stage.lines:
            line.asked.clear()
        client.send(REQUEST)
        stage.turns()
        for line in stage.lines:
            line.look()
        count = sum(len(request.split()) - 1 for line in stage.lines for request in line.asked)
        stage.serve()
        self.assertEqual(self.found(client.take()), MANY)
        return count

    def test_firstRound(self) -> None:
        """
        A client that is new, or whose last replies were large, gets the values of a few keys first. For others more
        keys are requested at first, so that they wait for fewer round trips.
        """
        stage = self.sharded()
        client = stage.client()
        self.assertEqual(self.firstRound(stage, client), PART_KEYS)
        self.widen(stage, client)
        self.assertEqual(self.firstRound(stage, client), FIRST * PART_KEYS)
        large = b"get %b\r\n" % b" ".join(b"large%d" % number for number in range(PART_KEYS))
        for _ in range(3):
            stage.ask(client, large + large)
        self.assertEqual(self.firstRound(stage, client), PART_KEYS)
        self.assertNothingHeld(stage)

    def test_rehash(self) -> None:
        """
        If others get the keys of a server that is down, the rest of the request goes there.
        """
        stage = self.sharded(ejection=Ejection(True, 1))
        client = stage.client()
        first = self.halfway(stage, client)
        reply = first + client.take()
        missing = [key for key in MANY if b"VALUE %b " % key not in reply]
        # Only those in flight when the server went down are lost.
        self.assertLessEqual(len(missing), 2 * PART_KEYS // 3 + 1)
        self.assertEqual(self.found(reply), [key for key in MANY if key not in missing])

    def test_gone(self) -> None:
        """
        The client goes at any moment: nothing more is requested for it, and nothing is held.
        """
        for moment in range(8):
            stage = self.sharded()
            client = stage.client()
            client.send(REQUEST)
            stage.turns()
            for step in range(moment):
                self.line(stage, step % 3).deliver(100 if step % 2 else None)
                stage.turns()
            asked = sum(len(line.asked) for line in stage.lines)
            client.lose()
            self.assertEqual(stage.unread.total, 0)
            stage.serve()
            stage.clock.advance(1)
            stage.serve()
            self.assertLessEqual(sum(len(line.asked) for line in stage.lines), asked + 3)
            self.assertEqual(stage.unread.total, 0)


class HeldTests(ScatterCase):
    """
    Tests for the bytes that are held until all servers have replied.
    """

    def large(self, *numbers: int) -> bytes:
        """
        @return: a get of large values.
        """
        return b"get %b\r\n" % b" ".join(b"large%d" % number for number in numbers)

    def test_counted(self) -> None:
        """
        Values that have arrived count as held until the last server has replied, whether they have arrived in one piece
        or in many.
        """
        for piece in (None, 1000):
            stage = self.sharded()
            client = stage.client()
            client.send(self.large(0, 1, 3, 2))
            stage.turns()
            for number, least in ((0, 40000), (1, 60000)):
                while self.line(stage, number).deliver(piece):
                    pass
                self.assertGreaterEqual(stage.unread.total, least)
                self.assertLess(stage.unread.total, least + 1000)
            self.assertEqual(client.take(), b"")
            stage.serve()
            self.assertEqual(client.take(), answer(self.large(0, 1, 3, 2))[0])
            self.assertNothingHeld(stage)

    def test_failed(self) -> None:
        """
        They do so no more when the last server has failed.
        """
        for partialError in (False, True):
            stage = self.sharded(sessionLimits=SessionLimits(partialError=partialError))
            client = stage.client()
            client.send(self.large(0, 1))
            stage.turns()
            self.line(stage, 0).deliver()
            self.assertGreater(stage.unread.total, 20000)
            self.down(stage)
            stage.serve()
            self.assertEqual(client.take(), REFUSED if partialError else answer(self.large(0))[0])
            self.assertNothingHeld(stage)

    def test_tooMuch(self) -> None:
        """
        If the values of a request are more than is held for a client, they are requested once more, few at a time.
        """
        for count, piece, window in itertools.product((5, 40, 100), (20000, 3000), (2, 256)):
            stage = self.sharded(sessionLimits=SessionLimits(unreadHard=200000, unreadSoft=20000))
            client = stage.client()
            while next(iter(stage.sessions.sessions)).room < window:
                stage.ask(client, b"get a0 a1\r\n")
            request = self.large(*range(count))
            client.send(b"mn\r\n" + request + request + b"mn\r\n")
            stage.turns()
            while sum(line.deliver(piece) for line in stage.lines):
                stage.turns()
                self.assertLessEqual(stage.unread.total, 200000)
            self.assertEqual(client.take(), b"MN\r\n" + answer(request)[0] * 2 + b"MN\r\n")
            self.assertNothingHeld(stage)

    def test_tooMuchLost(self) -> None:
        """
        A part whose beginning was dropped, and whose connection is lost then, is requested twice and not three times if
        its whole reply can be held the second time.
        """
        stage = self.sharded(sessionLimits=SessionLimits(unreadHard=30000))
        client = stage.client()
        client.send(self.large(0, 1, 3))
        stage.turns()
        line = self.line(stage, 0)
        line.deliver(35000)
        stage.sessions.limits = SessionLimits()
        for session in stage.sessions.sessions:
            session._limits = stage.sessions.limits
        line.lose()
        stage.turns()
        while sum(each.deliver(3000) for each in stage.lines):
            stage.turns()
        self.assertEqual(client.take(), answer(self.large(0, 1, 3))[0])
        self.assertEqual(sum(b"large0" in each for line in stage.lines for each in line.asked), 2)
        self.assertNothingHeld(stage)

    def test_tooMuchUnread(self) -> None:
        """
        If the client does not read meanwhile, nothing more is requested until it does.
        """
        stage = self.sharded(sessionLimits=SessionLimits(unreadHard=200000, unreadSoft=20000))
        client = stage.client()
        client.reads = False
        request = self.large(*range(40))
        client.send(request)
        stage.turns()
        while sum(line.deliver(3000) for line in stage.lines):
            stage.turns()
        self.assertTrue(client.connected)
        asked = sum(len(line.asked) for line in stage.lines)
        stage.clock.advance(1)
        self.assertEqual(sum(len(line.asked) for line in stage.lines), asked)
        client.reads = True
        while client.read(50000):
            stage.serve()
        self.assertEqual(client.take(), answer(request)[0])
        self.assertNothingHeld(stage)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 1 << 32), st.sampled_from((12, 60)), st.sampled_from((20000, 50000)))
    def test_tooMuchPipelined(self, seed: int, count: int, soft: int) -> None:
        """
        The same for several requests in flight, of a client that reads now and then.
        """
        chance = random.Random(seed)
        stage = ShardedStage(sessionLimits=SessionLimits(unreadHard=200000, unreadSoft=soft))
        client = stage.client()
        while next(iter(stage.sessions.sessions)).room < 256:
            stage.ask(client, b"get a0 a1\r\n")
        client.reads = False
        request = self.large(*range(count))
        client.send(request * 3 + b"mn\r\n")
        stage.turns()
        idle = 0
        while idle < 30:
            moved = sum(line.deliver(chance.choice((3000, 60000))) for line in stage.lines if chance.random() < 0.7)
            stage.turns()
            if chance.random() < 0.5:
                moved += client.read(chance.choice((5000, 100000)))
            idle = 0 if moved else idle + 1
        self.assertEqual(client.take(), answer(request)[0] * 3 + b"MN\r\n")
        self.assertNothingHeld(stage)
        stage.sessions.abort()
        stage.pool.abort()
        stage.turns()

    def test_tooMuchMerged(self) -> None:
        """
        The same for single gets that were merged.
        """
        stage = self.sharded(sessionLimits=SessionLimits(unreadHard=200000, unreadSoft=20000))
        client = stage.client()
        while next(iter(stage.sessions.sessions)).room < 64:
            stage.ask(client, b"get a0 a1\r\n")
        requests = [self.large(number) for number in range(30)]
        client.send(b"".join(requests))
        stage.turns()
        while sum(line.deliver(3000) for line in stage.lines):
            stage.turns()
        self.assertEqual(client.take(), b"".join(answer(request)[0] for request in requests))
        self.assertNothingHeld(stage)

    def test_ownLimit(self) -> None:
        """
        A client for which too much is held is closed, if its values cannot be requested once more.
        """
        stage = self.sharded(sessionLimits=SessionLimits(unreadHard=50000))
        client = stage.client()
        client.send(self.large(0, 3, 6, 1).replace(b"get", b"gat 0"))
        stage.turns()
        self.line(stage, 0).deliver()
        stage.turns()
        self.assertFalse(client.connected)
        self.assertEqual((stage.unread.total, stage.unread.dropped), (0, 1))
        stage.serve()
        self.assertEqual(stage.unread.total, 0)

    def test_commonLimit(self) -> None:
        """
        Of many clients that wait for a slow server, those with the most bytes are closed, so that not more is held than
        for all clients together is allowed.
        """
        stage = self.sharded(maxUnread=100000)
        clients = [stage.client() for _ in range(10)]
        for client in clients:
            client.send(self.large(0, 1))
        stage.turns()
        while self.line(stage, 0).deliver(5000):
            stage.turns()
            self.assertLessEqual(stage.unread.total, 100000)
        stage.turns()
        connected = [client for client in clients if client.connected]
        self.assertEqual(len(connected), 4)
        stage.serve()
        for client in connected:
            self.assertEqual(client.take(), answer(self.large(0, 1))[0])
        self.assertNothingHeld(stage)

    def test_crowded(self) -> None:
        """
        While a client does not read, no more is requested for it than the values that are due, and all arrives when it
        reads again.
        """
        keys = [b"large%d" % number for number in range(4 * PART_KEYS)]
        stage = self.sharded(sessionLimits=SessionLimits(unreadSoft=100000))
        client = stage.client()
        client.reads = False
        client.send(b"get %b\r\n" % b" ".join(keys))
        stage.serve()
        asked = [key for line in stage.lines for request in line.asked for key in request.split()[1:]]
        self.assertLessEqual(len(asked), 2 * PART_KEYS)
        total = 0
        client.reads = True
        while client.read(100000):
            stage.serve()
            total += 1
        self.assertEqual(client.take(), answer(b"get %b\r\n" % b" ".join(keys))[0])
        self.assertNothingHeld(stage)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 1 << 32))
    def test_random(self, seed: int) -> None:
        """
        Whatever happens, not more bytes count as held than there are, and none in the end.
        """
        rng = random.Random(seed)
        limits = SessionLimits(
            partialError=rng.random() < 0.5, unreadSoft=rng.choice((1000, 1 << 18)),
            unreadHard=rng.choice((60000, 1 << 26)),
        )  # fmt: skip
        line = rng.choice((Line, QueuedLine))
        stage = self.sharded(
            sessionLimits=limits, ejection=Ejection(rng.random() < 0.5, 1), line=line, merges=rng.random() < 0.7
        )
        clients = [stage.client() for _ in range(3)]
        for _ in range(rng.randint(5, 25)):
            client = rng.choice(clients)
            action = rng.randrange(8)
            if action < 3 and client.connected:
                names = rng.choices((b"short", b"miss", b"large", b"a"), k=rng.choice((2, 5, 120)))
                keys = [b"%b%d" % (name, rng.randrange(9)) for name in names]
                client.send(b"get %b\r\n" % b" ".join(keys))
            elif action == 3 and rng.random() < 0.3:
                client.lose()
            elif action == 4:
                client.reads = not client.reads
                client.read()
            elif action == 5 and rng.random() < 0.4:
                rng.choice(stage.servers).mode = rng.choice(("refuse", "accept"))
                rng.choice(stage.lines).lose()
            elif action == 6:
                stage.clock.advance(rng.choice((0.1, 1.0)))
            else:
                rng.choice(stage.lines).deliver(rng.choice((1, 3000, 50000)))
            stage.turns()
            stage.pool.selfCheck()
            self.assertGreaterEqual(stage.unread.total, 0)
            self.assertEqual(stage.unread.total,
                             sum(session.unread + session.kept for session in stage.sessions.sessions))  # fmt: skip
        for server in stage.servers:
            server.mode = "accept"
        for _ in range(4):
            for client in clients:
                client.reads = True
                client.read()
            stage.serve()
            stage.clock.advance(1)
        self.assertNothingHeld(stage)
        self.assertEqual([session.inFlight for session in stage.sessions.sessions if session.inFlight], [])


class DuplicateTests(ScatterCase):
    """
    Tests for keys that are requested several times.
    """

    def test_duplicates(self) -> None:
        """
        Each has its value again.
        """
        stage = self.sharded()
        request = b"get a1 a0 a1 miss2 a1 a2 a0\r\n"
        self.assertEqual(stage.ask(stage.client(), request), answer(request)[0])
        traffic = [server.traffic for server in stage.pool.servers]
        self.assertEqual(sum(each.missed + each.moreMissed for each in traffic), 1)

    def test_carriageReturn(self) -> None:
        """
        A key may contain CR. It has the same server in all requests.
        """
        stage = self.sharded()
        client = stage.client()
        for request in (b"delete x\ry1\r\n", b"get a0 x\ry1 a2\r\n"):
            client.send(request)
            stage.turns()
        line = self.line(stage, 1)
        self.assertEqual(line.take(), b"delete x\ry1\r\nget x\ry1\r\n")
        line.send(b"DELETED\r\nVALUE x\ry1 0 1\r\nX\r\nEND\r\n")
        stage.serve()
        first, third = (answer(b"get %b\r\n" % key)[0].removesuffix(b"END\r\n") for key in (b"a0", b"a2"))
        self.assertEqual(client.take(), b"DELETED\r\n" + first + b"VALUE x\ry1 0 1\r\nX\r\n" + third + b"END\r\n")
