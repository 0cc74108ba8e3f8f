# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.http.pages}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.events import Events
from txconnpool.operate.http import pages
from txconnpool.operate.http.messages import Request, Response
from txconnpool.operate.http.pages import FIELDS, FRESH, Pages
from txconnpool.operate.statistics.history import History


class PagesTests(SynchronousTestCase):
    """
    Tests for L{Pages}.
    """

    def setUp(self) -> None:
        """
        Make pages of a pool that is ready.
        """
        self.clock = Clock()
        self.read = 0
        self.rendered = 0
        self.later: Deferred[Any] | None = None
        self.snapshot: dict[str, Any] = {"version": "1", "pools": []}
        self.snapshot["pools"] = [{"name": name, "state": "ready", "servers": []} for name in ("a", "b")]
        self.patch(pages, "exposition", self.exposition)
        self.pages = Pages(self.source, History(), Events(), self.clock)

    def source(self) -> Any:
        self.read += 1
        return self.later or self.snapshot

    def exposition(self, snapshot: dict[str, Any]) -> str:
        self.rendered += 1
        return str(self.rendered)

    def ask(self, path: str, query: str = "") -> Deferred[Response]:
        return self.pages.respond(Request("GET", path, query))

    def get(self, path: str, query: str = "") -> Response:
        return self.successResultOf(self.ask(path, query))

    def test_fresh(self) -> None:
        """
        However many requests there are, statistics are read once in L{FRESH} seconds, and each response is made once.
        """
        for number in range(1, 4):
            for _ in range(100):
                self.assertEqual(self.get("/metrics").body, str(number).encode())
                self.assertEqual(self.get("/healthz").code, 200)
                self.assertIs(self.get("/stats.json").body, self.get("/stats.json").body)
                self.assertIs(self.get("/healthz", "pool=a"), self.get("/healthz", "pool=a"))
            self.assertEqual((self.read, self.rendered), (number, number))
            self.clock.advance(FRESH)

    def test_setBack(self) -> None:
        """
        A clock that is set back makes nothing stale.
        """
        self.clock.advance(1000.0)
        self.get("/metrics")
        self.clock.rightNow = 1.0
        self.assertEqual(self.get("/metrics").body, b"2")

    def test_together(self) -> None:
        """
        Requests during a read wait for its end. They may be cancelled.
        """
        self.later = Deferred()
        asked = [self.ask("/metrics") for _ in range(5)]
        self.clock.advance(10 * FRESH)
        asked += [self.ask("/healthz")]
        asked[1].cancel()
        self.failureResultOf(asked.pop(1), CancelledError)
        self.later.callback(self.snapshot)
        self.assertEqual([self.successResultOf(each).code for each in asked], [200] * 5)
        self.assertEqual((self.read, self.rendered), (1, 1))
        self.clock.advance(FRESH - 0.1)
        self.get("/metrics")
        self.assertEqual(self.read, 1)

    def test_failed(self) -> None:
        """
        A failure is logged, and it is answered with 503, once in L{FRESH} seconds.
        """
        self.later = Deferred()
        self.later.errback(ZeroDivisionError())
        for number in (1, 2):
            self.assertEqual({self.get("/metrics").code for _ in range(10)}, {503})
            self.assertEqual(self.get("/healthz").code, 503)
            self.assertEqual(self.read, number)
            self.later = Deferred()
            self.later.errback(ZeroDivisionError())
            self.clock.advance(FRESH)
        self.later.addErrback(lambda _: None)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_defect(self) -> None:
        """
        An exception while a response is made is logged once, and concerns no other response.
        """

        def exposition(snapshot: object) -> str:
            raise ZeroDivisionError

        self.patch(pages, "exposition", exposition)
        self.assertEqual({self.get("/metrics").code for _ in range(10)}, {503})
        self.assertEqual(self.get("/healthz").code, 200)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_pools(self) -> None:
        """
        Responses about pools that do not exist are not kept.
        """
        for number in range(1000):
            self.assertEqual(self.get("/healthz", f"pool={number}").code, 404)
        self.assertEqual(json.loads(self.get("/healthz", "pool=b").body)["pools"], {"b": "ready"})
        _, made = self.successResultOf(self.pages._snapshot.get())
        self.assertEqual(len(made), 1)

    def test_stopping(self) -> None:
        """
        When the proxy stops, C{/healthz} says so at once, also if the statistics do not yet.
        """
        self.assertEqual(self.get("/healthz").code, 200)
        self.pages.setStopping(True)
        for path, pools in (("/healthz", {"a": "draining", "b": "draining"}), ("/healthz/b", {"b": "draining"})):
            response = self.get(path)
            self.assertEqual((response.code, json.loads(response.body)), (503, {"status": "draining", "pools": pools}))
        self.assertEqual(self.get("/healthz/none").code, 404)
        self.pages.setStopping(False)
        self.assertEqual(self.get("/healthz").code, 200)

    def test_stoppingLater(self) -> None:
        """
        So does the response to a check for which statistics were being read.
        """
        self.later = Deferred()
        asked = self.ask("/healthz")
        self.pages.setStopping(True)
        self.later.callback(self.snapshot)
        self.assertEqual(self.successResultOf(asked).code, 503)
        self.assertEqual(self.get("/healthz").code, 503)

    def test_alive(self) -> None:
        """
        C{/livez} is 200 while the process answers, also if there are no statistics, no server is up, or it stops.
        """
        self.later = Deferred()
        self.pages.setStopping(True)
        self.assertEqual(self.get("/livez").code, 200)
        self.assertEqual(self.read, 0)

    def test_poolInPath(self) -> None:
        """
        C{/healthz/POOL} is the health of a pool too, for checks that cannot have a query.
        """
        self.assertIs(self.get("/healthz/b"), self.get("/healthz", "pool=b"))
        self.assertIs(self.get("/healthz/%62"), self.get("/healthz/b"))
        self.assertIs(self.get("/healthz/"), self.get("/healthz"))
        for path in ("/healthz/none", "/healthz/b/", "/healthzb"):
            self.assertEqual(self.get(path).code, 404)

    def test_query(self) -> None:
        """
        A query other than that of C{/healthz} is ignored; one with too many fields is refused.
        """
        self.assertIs(self.get("/metrics", "pool=z"), self.get("/metrics"))
        self.assertIs(self.get("/healthz", "pool="), self.get("/healthz", "x=%ff"))
        self.assertEqual(self.get("/healthz", "&".join(["a=b"] * (FIELDS + 1))).code, 400)

    def test_notFound(self) -> None:
        """
        Other paths are not found, and read no statistics.
        """
        for path in ("/other", "/metrics/", "*", "//", "/Metrics"):
            self.assertEqual(self.get(path).code, 404)
        self.assertEqual(self.get("/").code, 200)
        self.assertEqual(self.read, 0)
