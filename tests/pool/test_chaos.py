# -*- test-case-name: tests.pool.test_chaos -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Sessions, connections and the pool with random events in random order.

Several clients pipeline requests of all kinds while bytes arrive in pieces, connections are lost or deliver invalid
bytes, servers stop answering or refuse connections, clients stop reading or disconnect, and time passes. In the end
every request has exactly one reply, in its place: its own or an error. A session is closed only where nothing else is
possible. The invariants of the pool hold after each event.

The environment variable C{CONNPOOL_EXAMPLES} sets the number of histories.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any, NamedTuple

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.memcached import Line, answer
from tests.pipes import Pipe
from tests.stage import Stage, assertClosed, assertTidy
from txconnpool.proxy.flow import SessionLimits

ITEM_MAX = 4000

TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"


class Scene(NamedTuple):
    """
    The parameters of a story.

    @ivar minimum: the number of connections that are made without requests.
    @ivar depth: the maximum number of requests in flight on a connection.
    @ivar window: the maximum number of requests in flight of a session.
    @ivar soft: the number of unread bytes above which a session is not read from. It is closed above 15 times that.
    @ivar total: the maximum number of bytes that are held for all sessions.
    @ivar backlog: the number of bytes of requests above which a session that cannot send is not read from.
    @ivar unites: whether reads of several clients are sent as one.
    """

    servers: int
    connections: int
    clients: int
    minimum: int
    depth: int = 6
    window: int = 20
    soft: int = 20000
    total: int = 500000
    backlog: int = 1 << 16
    unites: bool = False

    @property
    def limits(self) -> SessionLimits:
        return SessionLimits(
            maxInFlight=self.window, backlog=self.backlog, unreadSoft=self.soft, unreadHard=15 * self.soft
        )


@dataclass(frozen=True)
class Expected:
    """
    The expected reply to one request.

    @ivar reply: the reply.
    @ivar own: whether the proxy itself replies, so that no failure can replace the reply.
    @ivar silent: whether the client sees nothing, not even an error.
    """

    reply: bytes
    own: bool = False
    silent: bool = False


def requests(kind: str, name: bytes) -> list[tuple[bytes, Expected | None]]:
    """
    Make requests of a kind.

    @param name: a part of every key in them.

    @return: requests, and the expected reply to each.
    """
    many = [b"%s.%d" % (name, number) for number in range(30)]
    asked = {
        "get": [b"get %s\r\n" % name],
        "miss": [b"get miss%s\r\n" % name],
        "run": [b"get %s\r\n" % each for each in many],
        "mixed": [b"get %s%s\r\n" % each for each in zip(cycle([b"miss", b"short", b"short"]), many, strict=False)],
        "keys": [b"get %s\r\n" % b" ".join(many)],
        "parts": [b"get %s\r\n" % b" ".join(many * 4)],
        "missParts": [b"get%s\r\n" % (b" miss%s" % name * 120)],
        "largeParts": [b"get large%s%s\r\n" % (name, b" miss%s large%s" % (name, name) * 30)],
        "large": [b"get large%s\r\n" % name],
        "gets": [b"gets %s\r\n" % name],
        "set": [b"set %s 0 0 5\r\nEND\r\n\r\n" % name],
        "long": [b"set %s 0 0 %d\r\n%s\r\n" % (name, ITEM_MAX, b"x" * ITEM_MAX)],
        "incr": [b"incr %s 1\r\n" % name],
        "touch": [b"touch miss%s 0\r\n" % name],
        "delete": [b"delete miss%s\r\n" % name],
        "meta": [b"mg %s v\r\n" % name],
    }
    if kind in asked:
        return [(request, Expected(answer(request)[0])) for request in asked[kind]]
    size = 2 * ITEM_MAX
    large = b" %s 0 0 %d\r\n%s\r\n" % (name, size, b"x" * size)
    silent = b"set %s 0 0 %d noreply\r\n%s\r\n" % (name, size, b"x" * size)
    other: dict[str, list[tuple[bytes, Expected | None]]] = {
        "noreply": [(b"set %s 0 0 1 noreply\r\nx\r\n" % name, Expected(b"", silent=True))],
        "quiet": [
            (b"mg miss%s q\r\n" % name, Expected(b"")),
            (b"md %s q\r\n" % name, Expected(b"")),
            (b"mn\r\n", Expected(b"MN\r\n")),
        ],
        "nonsense": [(b"%s\r\n" % name, Expected(b"ERROR\r\n", own=True))],
        "babble": [(b"%s\r\n" % name, Expected(b"ERROR\r\n", own=True))] * 50,
        "tooLarge": [(b"add" + large, Expected(TOO_LARGE, own=True))],
        "replaces": [(b"set" + large, Expected(TOO_LARGE, own=True))],
        "replacesQuietly": [(silent, Expected(b"", silent=True))],
        "stats": [(b"stats proxy\r\n", Expected(b"STAT answer 42\r\nEND\r\n", own=True))],
        "flush": [(b"flush_all\r\n", Expected(b"OK\r\n"))],
        "flushed": [(b"flush_all noreply\r\n", Expected(b"", silent=True))],
        "quit": [(b"quit\r\n", None)],
    }
    return other[kind]


KINDS = [
    "get", "miss", "run", "mixed", "keys", "parts", "missParts", "largeParts", "large", "gets", "set", "long", "incr",
    "touch", "delete", "meta", "noreply", "quiet", "nonsense", "nonsense", "babble", "tooLarge", "replaces",
    "replacesQuietly", "stats", "stats", "flush", "flushed", "quit",
]  # fmt: skip


#: Events that need no number.
EVENTS = [
    "refuse", "hang", "accept", "accept", "deaf", "vanish", "halfClose", "expire", "block", "unblock", "lose", "junk",
    "delay", "provide", "pause", "resume", "resume", "drain", "restore", "restore",
]  # fmt: skip


@dataclass
class Client:
    """
    A client of the proxy, with requests to send.

    @ivar unsent: the bytes that it has not sent yet.
    @ivar expected: for each request, the number of bytes sent when it is complete, and the expected reply.
    @ivar sent: the number of bytes sent.
    @ivar parts: whether it made a request that is split, so that part of the reply may have been sent when no server
        can be reached.
    @ivar over: whether it makes no more requests.
    @ivar ended: whether it has half-closed the connection.
    @ivar gone: whether it has closed the connection.
    """

    number: int
    pipe: Pipe
    unsent: bytes = b""
    expected: list[tuple[int, Expected]] = field(default_factory=list)
    planned: int = 0
    sent: int = 0
    parts: bool = False
    over: bool = False
    ended: bool = False
    gone: bool = False

    def plan(self, kind: str) -> None:
        """
        Add requests of a kind.
        """
        if not self.over:
            for data, expected in requests(kind, b"c%dr%d" % (self.number, len(self.expected))):
                self.unsent += data
                self.planned += len(data)
                if expected is not None:
                    self.expected.append((self.planned, expected))
            self.parts |= kind.lower().endswith("parts")
            self.over = kind == "quit"

    def push(self, size: int) -> None:
        """
        Send a number of bytes.
        """
        data, self.unsent = self.unsent[:size], self.unsent[size:]
        if data and not (self.ended or self.gone):
            self.sent += len(data)
            self.pipe.send(data)

    def asked(self) -> list[Expected]:
        """
        @return: the expected replies to all requests that were sent completely.
        """
        return [expected for end, expected in self.expected if end <= self.sent]


class Story:
    """
    A proxy with clients and servers, and the events that happen to them.

    @ivar unharmed: whether there was no event yet after which the proxy sends a request again.
    @ivar depth: the largest depth that the pool had.
    @ivar window: the largest maximum of requests in flight of a session.
    """

    def __init__(self, *scene: Any) -> None:
        self.scene = here = Scene(*scene)
        self.stage = stage = Stage(
            here.servers, maximum=here.connections, minimum=min(here.minimum, here.connections), depth=here.depth,
            maxWaiting=here.clients, maxItemSize=ITEM_MAX, maxUnread=here.total, sessionLimits=here.limits,
            requestTimeout=2.0, waitTimeout=1.0, unites=here.unites,
        )  # fmt: skip
        stage.clock.advance(2)
        self.clients = [Client(number, stage.client()) for number in range(here.clients)]
        self.unharmed = True
        self.depth, self.window = here.depth, here.window
        self._delayed = False  # whether statistics are provided later
        self._wanted: list[Deferred[list[tuple[str, int]]]] = []
        stage.sessions.report = self._report

    def _report(self, words: tuple[bytes, ...]) -> Any:
        if not self._delayed:
            return [("answer", 42)]
        self._wanted.append(Deferred())
        return self._wanted[-1]

    def _provide(self) -> None:
        """
        Provide the statistics for all requests that wait for them.
        """
        self._delayed = False
        wanted, self._wanted = self._wanted, []
        for each in wanted:
            each.callback([("answer", 42)])

    def act(self, what: str, which: int, size: int) -> None:
        """
        Let an event happen.
        """
        client = self.clients[which % len(self.clients)]
        server = self.stage.servers[which % len(self.stage.servers)]
        lines = [line for line in self.stage.lines if line.connected]
        if what in KINDS:
            client.plan(what)
            client.push(size)
        elif what == "push":
            client.push(size)
        elif what == "shout":
            client.push(1 << 20)
        elif what == "turn":
            self.stage.turns(1)
        elif what == "pass":
            self.stage.clock.advance(size / 1000)
        elif what in ("refuse", "hang", "accept"):
            server.mode = what
        elif what == "deaf":
            client.pipe.reads = False
        elif what == "read":
            client.pipe.read(size * 1000)
        elif what == "vanish":
            client.gone = client.over = True
            client.pipe.lose()
        elif what == "halfClose":
            client.over = client.ended = True
            client.pipe.end()
        elif what == "expire":
            self.stage.pool.expire()
        elif what == "delay":
            self._delayed = True
        elif what == "provide":
            self._provide()
        elif what in ("pause", "resume"):
            getattr(self.stage.pool, what)()
        elif what in ("drain", "restore"):
            getattr(self.stage.pool, what)(server.name)
        elif what == "adjust":
            self._adjust(which, size)
        elif lines:
            self.actOn(lines[which % len(lines)], what, size)

    def _adjust(self, which: int, size: int) -> None:
        """
        Put other limits in force.

        @param size: decides on them.
        """
        stage, here = self.stage, self.scene
        depth, window = (size % 7 + 1, here.window) if which % 2 else (here.depth, size % 20 + 1)
        self.depth, self.window = max(depth, self.depth), max(window, self.window)
        stage.pool.setLimits(replace(stage.pool.state.limits, depth=depth))
        stage.sessions.limit(replace(here.limits, maxInFlight=window, unreadSoft=here.soft + size))

    def actOn(self, line: Line, what: str, size: int) -> None:
        """
        Let an event happen to a connection to a server.
        """
        connection: Any = line.protocol.connection
        if what == "deliver":
            line.deliver(size)
        elif what == "answer":
            line.deliver()
        elif what == "block":
            line.reads = False
        elif what == "unblock":
            line.reads = True
            line.read()
        elif what == "lose":
            self.unharmed = False
            line.lose()
        elif what == "junk" and not connection.receiving:
            # Within a reply it might be taken for a part of it.
            self.unharmed = False
            line.send(b"JUNK\r\n")

    def finish(self) -> None:
        """
        End all failures, and let all requests have replies.
        """
        for server in self.stage.servers:
            server.mode = "accept"
            self.stage.pool.restore(server.name)
        self.stage.pool.resume()
        self._provide()
        for client in self.clients:
            client.push(1 << 20)
        for _ in range(12):
            for line in self.stage.lines:
                line.reads = True
                line.read()
            for client in self.clients:
                client.pipe.reads = True
                client.pipe.read()
            self.stage.serve()
            self.stage.clock.advance(0.5)


def explain(data: bytes, expected: list[Expected], whole: bool) -> bool:
    """
    @return: whether C{data} is what a client may have received: everything, or a beginning if not C{whole}.
    """
    ends = {0}
    for each in expected:
        after = set()
        for start in ends:
            if not whole and (start == len(data) or each.reply.startswith(data[start:])):
                return True
            if data.startswith(each.reply, start):
                after.add(start + len(each.reply))
            if each.own or each.silent:
                continue
            if line := _FAILURE.match(data, start):
                after.add(line.end())
            elif not whole and b"\n" not in data[start:] and b"SERVER_ERROR ".startswith(data[start : start + 13]):
                return True
        ends = after
    return len(data) in ends


_NAME = re.compile(rb"c(\d+)r(\d+)\b")

_READS = (b"get", b"gets", b"mg", b"mn")

_FAILURE = re.compile(rb"SERVER_ERROR (?!object)[^\r\n]*\r\n")

_ORDINARY = [
    st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.sampled_from([0, 10, 1000000])),
    st.tuples(st.sampled_from(["push", "deliver", "read"]), st.integers(0, 5), st.integers(1, 3000)),
    st.tuples(st.sampled_from(["shout", "answer", "answer", "turn"]), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("pass"), st.just(0), st.sampled_from([1, 50, 300, 1100])),
    st.tuples(st.just("adjust"), st.integers(0, 5), st.integers(0, 3000)),
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 5), st.just(0)),
]

#: Events that concern merged reads while connections are lost again and again.
_ROUGH = st.tuples(
    st.sampled_from(["run", "mixed", "nonsense", "lose", "turn", "deliver"]),
    st.integers(0, 5),
    st.sampled_from([50, 100, 500, 5000]),
)

#: Events that concern replies that are held back.
_HELD = st.tuples(
    st.sampled_from(
        [
            "get", "parts", "missParts", "run", "large", "babble", "set", "replaces", "tooLarge", "stats", "flush",
            "delay", "provide", "deaf", "lose", "turn", "turn", "answer",
        ]
    ),
    st.integers(0, 5),
    st.sampled_from([100, 1000000, 1000000]),
)  # fmt: skip

_BOUNDS = (
    st.integers(1, 6),
    st.sampled_from([1, 2, 3, 20]),
    st.sampled_from([30, 1000, 20000]),
    st.sampled_from([3000, 20000, 500000]),
    st.sampled_from([100, 1 << 16]),
    st.booleans(),
)

_SCENES = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(0, 6), *_BOUNDS),
    st.tuples(st.just(1), st.just(1), st.integers(1, 2), st.just(1), *_BOUNDS),
)

_STORIES = st.one_of(
    st.lists(st.one_of(*_ORDINARY), min_size=40, max_size=120),
    st.lists(st.one_of(_ROUGH, _ROUGH, *_ORDINARY), min_size=20, max_size=80),
    st.lists(st.one_of(_HELD, _HELD, *_ORDINARY), min_size=20, max_size=80),
)


class ChaosTests(SynchronousTestCase):
    """
    Tests of sessions, connections and pool with random events.
    """

    @covers("8")
    @settings(
        max_examples=int(os.environ.get("CONNPOOL_EXAMPLES", "150")),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @example(
        (1, 1, 1, 0),
        [
            ("parts", 0, 10000), ("pass", 0, 1), ("pass", 0, 1), ("answer", 0, 0),
            ("refuse", 0, 0), ("expire", 0, 0), ("answer", 0, 0), ("pass", 0, 1), ("pass", 0, 1),
        ],
    )  # fmt: skip
    @example(
        (2, 5, 4, 3),
        [
            ("expire", 5, 0), ("incr", 0, 100), ("hang", 0, 0), ("flushed", 4, 10), ("stats", 0, 0),
            ("stats", 4, 1000000), ("turn", 2, 0),
        ],
    )  # fmt: skip
    @example(
        (3, 4, 3, 2),
        [
            ("run", 5, 500), ("lose", 0, 0), ("lose", 5, 0), ("pass", 4, 1), ("deliver", 1, 991), ("lose", 1, 0),
        ],
    )  # fmt: skip
    @example(
        (3, 6, 5, 3),
        [("incr", 4, 100), ("flushed", 4, 0), ("delete", 4, 1000000), ("expire", 4, 0), ("halfClose", 4, 0)],
    )
    @example(
        (3, 2, 2, 3),
        [
            ("long", 5, 50), ("flush", 5, 1000000), ("flush", 3, 10), ("parts", 1, 0), ("push", 3, 1142),
            ("halfClose", 3, 0),
        ],
    )  # fmt: skip
    @example(
        (3, 1, 1, 2, 6, 2, 30, 500000, 65536),
        [("noreply", 0, 10), ("tooLarge", 0, 1000000), ("replaces", 0, 10)],
    )
    @example(
        (1, 1, 2, 1, 6, 20, 30, 500000, 100),
        [
            ("missParts", 3, 1000000), ("deliver", 0, 1515), ("deliver", 4, 1491), ("incr", 5, 1000000), ("lose", 1, 0),
        ],
    )  # fmt: skip
    @given(_SCENES, _STORIES)
    def test_everyRequestOnce(self, scene: tuple[int, ...], actions: list[tuple[str, int, int]]) -> None:
        """
        Every request has one reply, in its place: its own or an error. Otherwise the session was closed.
        """
        try:
            self.play(Story(*scene), actions)
        except Exception as reason:
            raise self.failureException(f"{reason!r}: {scene}, {actions}") from reason

    def play(self, story: Story, actions: list[tuple[str, int, int]]) -> None:
        """
        Let events happen, end all failures, and assert the result.
        """
        stage = story.stage
        for action in actions:
            story.act(*action)
            self.assertBounds(story)
        story.finish()
        self.assertBounds(story)
        assertTidy(self, stage.pool)
        for client in story.clients:
            self.assertAnswered(client, story)
        self.assertExecuted(story)
        stage.sessions.abort()
        stage.turns()
        self.assertEqual((stage.sessions.sessions, stage.unread.total), ({}, 0))
        assertClosed(self, stage)

    def assertBounds(self, story: Story) -> None:
        """
        Assert that the invariants and the limits hold.
        """
        stage = story.stage
        assertTidy(self, stage.pool, quiet=False, unites=story.scene.unites)
        # A connection that is replaced stays until its successor is established.
        self.assertLessEqual(len(stage.pool.state.records), stage.pool.state.limits.maximum + 1)
        for record in stage.pool.state.records:
            # A request to all servers is sent on full connections too.
            self.assertLessEqual(record.load, story.depth + len(story.clients))
        for session in stage.sessions.sessions:
            self.assertLessEqual(session.inFlight, story.window + 1)
            self.assertLessEqual(session._size, story.scene.backlog + (1 << 20))
            self.assertGreaterEqual(session.unread, session.held)
        held = sum(session.unread + session.kept for session in stage.sessions.sessions)
        self.assertEqual(stage.unread.total, held)
        self.assertLessEqual(stage.unread.total, stage.unread.limit)

    def assertAnswered(self, client: Client, story: Story) -> None:
        """
        Assert that a client has received what it should have.
        """
        expected = client.asked()
        closed = not client.pipe.connected
        counters = story.stage.pool.counters
        inVain = client.parts and counters.timedOut + counters.rejected + counters.unavailable
        unharmed = story.unharmed and not counters.requestTimeouts and not inVain
        if closed and not client.over and unharmed:
            self.assertGreater(story.stage.unread.dropped, 0)
        # A session is closed if its client had received part of a reply when the connection was lost.
        whole = not (client.gone or client.pipe.aborted or (closed and not unharmed))
        self.assertTrue(explain(client.pipe.received, expected, whole), (client.number, client.pipe.received[-200:]))

    def assertExecuted(self, story: Story) -> None:
        """
        Assert that no write was sent twice, that no read was sent more than twice, and that the writes of a client were
        sent in their order, as far as they were sent on one connection.
        """
        times: Counter[bytes] = Counter()
        for line in story.stage.lines:
            last: dict[bytes, int] = {}
            for request in line.asked:
                word = request.split(b" ", 1)[0]
                match = _NAME.search(request)
                if match is None or word in _READS:
                    continue
                client, number = match[1], int(match[2])
                times[request[: match.end()]] += 1
                self.assertLess(last.get(client, -1), number, request[:40])
                last[client] = number
        self.assertEqual([name for name, count in times.items() if count > 1], [])


class ExplainTests(SynchronousTestCase):
    """
    Tests for L{explain}.
    """

    def test_explain(self) -> None:
        """
        C{explain} accepts the expected replies and error lines in their places, and nothing else.
        """
        stored, hidden, own = Expected(b"STORED\r\n"), Expected(b"", silent=True), Expected(b"ERROR\r\n", own=True)
        error = b"SERVER_ERROR upstream connection lost\r\n"
        good = [
            (b"STORED\r\nERROR\r\n", [stored, own]),
            (error + b"ERROR\r\nSTORED\r\n", [stored, own, hidden, stored]),
            (error + b"STORED\r\n", [Expected(b""), stored]),
            (b"", [hidden, hidden]),
        ]
        bad = [
            (b"STORED\r\n", [stored, own]),
            (b"ERROR\r\nSTORED\r\n", [stored, own]),
            (error, [hidden]),
            (error, [own]),
            (b"STORED\r\nSTORED\r\n", [stored]),
            (b"STOR", [stored]),
        ]
        for data, expected in good:
            self.assertTrue(explain(data, expected, whole=True), data)
        for data, expected in bad:
            self.assertFalse(explain(data, expected, whole=True), data)
        for begun in (b"STOR", b"STORED\r\nER", b"SERVER_E", error[:-1]):
            self.assertTrue(explain(begun, [stored, own], whole=False), begun)
        self.assertFalse(explain(b"STORED\r\nSERVER_E", [stored, own], whole=False))
        self.assertFalse(explain(b"STORX", [stored, own], whole=False))
