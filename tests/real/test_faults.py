# -*- test-case-name: tests.real.test_faults -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Faults between the proxy and memcached, under a load of many clients that know what every answer must be.

Whatever happens, no answer is wrong and no client stuck. What fails is answered by one C{SERVER_ERROR} line, or by the
end of the connection where part of an answer was out already. When the fault is over, so are the failures.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.load import Load, Report
from tests.real.relay import (
    BLACKHOLE,
    FREEZE,
    PASS,
    REFUSE,
    Fault,
    Relay,
    cut,
    delay,
    duplicate,
    inject,
    reset,
    trickle,
)
from tests.real.servers import Memcached, Proxy, ask, missing, until
from tests.real.tokens import KINDS, META_KINDS

#: Of the load.
CLIENTS = 100

#: Seconds that a request may take, wait for a connection, and that a connection may take.
TIMEOUT = 0.5

#: Seconds from the end of a fault until nothing fails any more: a dial that has begun may have to time out, then there
#: is a pause before the next, of one second and a fifth at most, and this machine may be busy.
RECOVERY = TIMEOUT + 1.2 + 0.5

#: What a client may be told while the way to the server is spoilt.
EXPECTED = re.compile(
    r"upstream (?:connection lost|protocol error|timed out|unavailable)\b.* \(tcp:[^()]+\)$|timed out waiting "
)


class FaultTests(SynchronousTestCase):
    """
    A proxy between a load and a relay, behind which memcached is.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start everything but the load.
        """
        self.memcached = Memcached().start()
        self.addCleanup(self.memcached.stop)
        self.relay = Relay(self.memcached.address).start()
        self.addCleanup(self.relay.stop)
        times = [f"--{name}-timeout={TIMEOUT}" for name in ("connect", "wait", "request")]
        self.proxy = Proxy(*times, upstream=[self.relay.address]).start()
        self.addCleanup(self.proxy.stop)

    def suffer(self, *faults: Fault, seconds: float = 0.3, **settings: Any) -> Report:
        """
        Let faults happen in the middle of a load, each for a while, and check what has to be so after any.
        """
        return self.endure([(partial(self.relay.set, fault), self.repair) for fault in faults], seconds, **settings)

    def repair(self) -> None:
        """
        End the fault.
        """
        self.relay.set(PASS)

    def endure(
        self, evils: list[tuple[Callable[[], object], Callable[[], object]]], seconds: float, **settings: Any
    ) -> Report:
        """
        Do the same with what begins and ends when something is called.
        """
        chosen = {"clients": CLIENTS, "seconds": 60.0, "kinds": META_KINDS, "pause": 0.02, "sizes": (10, 100, 2000)}
        load = Load(self.proxy.address, **{**chosen, **settings}).start()
        self.addCleanup(load.kill)
        time.sleep(0.2)
        over = 0.0
        for begin, end in evils:
            begin()
            time.sleep(seconds)
            end()
            over = time.monotonic()
            until(lambda: ask(self.proxy.address, b"mn\r\n") == b"MN\r\n", RECOVERY, "recovery")
            time.sleep(0.3)
        report = load.finish()
        self.assertEqual((report["wrongs"], report["stuck"]), (0, 0), report["wrong"])
        self.assertEqual([error for error in report["errors"] if not EXPECTED.match(error)], [])
        self.assertEqual((report["connected"], report["refused"], report["idle"]), (report["clients"], 0, 0))
        self.assertEqual(report["closed"], report["halved"])
        if report["lastError"]:
            self.assertLess(report["lastError"] - over, RECOVERY)
            self.assertGreater(report["resumed"][1], 0)
        return report

    def test_none(self) -> None:
        """
        Without a fault nothing fails.
        """
        report = self.suffer(PASS)
        self.assertEqual((report["errors"], report["lost"]), ({}, 0))
        self.assertGreater(report["ok"], 10 * CLIENTS)

    def test_slow(self) -> None:
        """
        A server that is slow, or whose every byte comes by itself, costs no request as long as it is within its time.
        """
        report = self.suffer(delay(TIMEOUT / 5), trickle(), sizes=(10, 100), clients=20)
        self.assertEqual((report["errors"], report["lost"]), ({}, 0))

    def test_tooSlow(self) -> None:
        """
        A server that is slower than a request may be costs requests their time, and no more.
        """
        report = self.suffer(delay(TIMEOUT), seconds=2 * TIMEOUT)
        self.assertNotEqual(report["errors"], {})
        self.assertLess(report["slowest"], 2 * TIMEOUT + 0.3)

    def test_cut(self) -> None:
        """
        Connections that end, between replies and in the middle of them, cost what was in flight, but reads only where
        they were tried a second time in vain, or where part of the value was out already.
        """
        report = self.suffer(cut(), cut(after=1), cut(after=1000))
        self.assertGreater(self.relay.faults, 3)
        self.assertLess(report["lost"], report["ok"] / 20)

    def test_reset(self) -> None:
        """
        So do those that end by force.
        """
        self.suffer(reset(), reset(after=1), reset(after=1000))
        self.assertGreater(self.relay.faults, 4)

    def test_silence(self) -> None:
        """
        A server that says nothing, because it swallows everything, or reads nothing, costs requests their time; after
        that they fail at once. What it would have said when it thaws goes to nobody.
        """
        report = self.suffer(BLACKHOLE, FREEZE, seconds=3 * TIMEOUT)
        self.assertLess(report["slowest"], 2 * TIMEOUT + 0.3)
        self.assertGreater(sum(report["errors"].values()), 10 * CLIENTS)

    def test_frozen(self) -> None:
        """
        So does a server that is stopped and goes on later, and one that is killed and comes back.
        """
        frozen = (self.memcached.freeze, self.memcached.thaw)
        killed = (self.memcached.kill, self.memcached.start)
        report = self.endure([frozen, killed], 3 * TIMEOUT, misses=True)
        self.assertLess(report["slowest"], 2 * TIMEOUT + 0.3)
        self.assertGreater(sum(report["errors"].values()), 10 * CLIENTS)

    def test_refuse(self) -> None:
        """
        Nothing listens any more: what is connected goes on, and when it ends requests fail at once.
        """
        report = self.suffer(REFUSE)
        self.assertEqual(report["errors"], {})
        self.relay.set(REFUSE)
        self.relay.drop()
        report = self.suffer(REFUSE)
        self.assertNotEqual(report["errors"], {})
        self.assertLess(report["slowest"], TIMEOUT)

    def test_inject(self) -> None:
        """
        Bytes that the server did not send reach nobody as an answer. (In a meta reply they could pass as a flag, and a
        whole C{END}, where a reply is due or where the last bytes of a value are, is one that nobody could tell from
        the server's own.)
        """
        replies = (b"END \r\n", b"STORED\r\n", b"VALUE a 0 1\r\nx\r\n")
        garbage = (*replies, b"\r\n", b"\0" * 10, b"HTTP/1.1 400 Bad Request\r\n")
        self.suffer(*(inject(data, after=100) for data in garbage), kinds=KINDS)
        self.assertGreater(self.relay.faults, len(garbage))

    def test_duplicate(self) -> None:
        """
        Nor do bytes that come twice, if they are fewer than those of a value. (A stretch that begins in the middle of
        one value and ends at the same place of another makes a whole reply of the beginning of the one and the end of
        the other, which nobody could tell either.)
        """
        for size, counts in (2000, (12, 500)), (30000, (20000,)):
            self.relay.faults = 0
            self.suffer(*(duplicate(count, after=100) for count in counts), kinds=KINDS, sizes=(size,))
            self.assertGreater(self.relay.faults, 1)
