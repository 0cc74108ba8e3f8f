# -*- test-case-name: tests.real.test_faults -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Faults between the proxy and memcached, under a load of many clients that know every correct reply.

In all cases no reply is wrong and no client is stuck. Requests fail with a C{SERVER_ERROR} line, or with the end of the
connection if a part of the reply was already forwarded. Failures end soon after the fault.
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

#: The number of clients of the load.
CLIENTS = 100

#: The request, wait and connect timeouts, in seconds.
TIMEOUT = 1.0

#: Seconds within which each request has a reply: a read is tried twice, and the machine may be busy.
LATEST = 2 * TIMEOUT + 30.0

#: The errors that clients may get during a fault.
EXPECTED = re.compile(
    r"upstream (?:connection lost|protocol error|timed out|unavailable)\b.* \(tcp:[^()]+\)$|timed out waiting "
)


class FaultTests(SynchronousTestCase):
    """
    Tests with a load, a proxy, a relay, and a memcached behind it.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start memcached and the relay. The proxy starts with L{patient}, or with the load.
        """
        self.memcached = Memcached().start()
        self.addCleanup(self.memcached.stop)
        self.relay = Relay(self.memcached.address).start()
        self.addCleanup(self.relay.stop)
        times = [f"--{name}-timeout={TIMEOUT}" for name in ("connect", "wait", "request")]
        self.proxy = Proxy(*times, upstream=[self.relay.address])
        self.addCleanup(self.proxy.stop)

    def patient(self, *options: str) -> None:
        """
        Start the proxy without short timeouts: no request may fail because the machine is busy.
        """
        self.proxy.options = ("--connect-timeout=20", "--wait-timeout=20", "--request-timeout=20", *options)
        self.proxy.start()

    def suffer(self, *faults: Fault, seconds: float = 0.3, strikes: int = 0, **settings: Any) -> Report:
        """
        Inject faults in the middle of a load, each for some time, and check the load.

        @param strikes: how many connections each of the faults affects at least.
        """
        before = 0

        def struck() -> None:
            until(lambda: self.relay.faults >= before + strikes, what="the effect of a fault")
            self.repair()

        def strike(fault: Fault) -> None:
            nonlocal before
            before = self.relay.faults
            self.relay.set(fault)

        return self.endure([(partial(strike, fault), struck) for fault in faults], seconds, **settings)

    def repair(self) -> None:
        """
        Remove the fault.
        """
        self.relay.set(PASS)

    def endure(
        self,
        evils: list[tuple[Callable[[], object], Callable[[], object]]],
        seconds: float,
        errors: int = 0,
        **settings: Any,
    ) -> Report:
        """
        The same with any functions that begin and end a fault.

        @param errors: how many requests fail during each fault at least.
        """
        if not self.proxy.running():
            self.proxy.start()
        chosen = {"clients": CLIENTS, "seconds": 600.0, "kinds": META_KINDS, "pause": 0.02, "sizes": (10, 100, 2000)}
        load = Load(self.proxy.address, **{**chosen, **settings}).start()
        self.addCleanup(load.kill)
        served = 5 * load.settings.clients
        load.untilServed(served)
        for begin, end in evils:
            enough = load.count("errors") + errors
            begin()
            time.sleep(seconds)
            until(lambda: load.count("errors") >= enough, what="errors")  # noqa: B023
            end()
            until(lambda: ask(self.proxy.address, b"mn\r\n") == b"MN\r\n", what="recovery")
            load.untilServed(served)  # errors of before may still be on their way

        def calm() -> bool:
            failed = load.count("errors")
            load.untilServed(served)
            return load.count("errors") == failed

        # Not at once: with short timeouts, a request may fail because the machine is busy.
        until(calm, what="an end of the errors")
        report = load.finish()
        self.assertEqual((report["wrongs"], report["stuck"]), (0, 0), report["wrong"])
        self.assertEqual([error for error in report["errors"] if not EXPECTED.match(error)], [])
        self.assertEqual((report["connected"], report["refused"], report["idle"]), (report["clients"], 0, 0))
        self.assertEqual(report["closed"], report["halved"])
        if report["lastError"]:
            self.assertGreater(report["resumed"][1], 0)
        return report

    def test_none(self) -> None:
        """
        Without a fault nothing fails.
        """
        self.patient()
        report = self.suffer(PASS)
        self.assertEqual((report["errors"], report["lost"]), ({}, 0))

    def test_slow(self) -> None:
        """
        No request fails if a server is slow but within its timeout, or if replies arrive byte by byte.
        """
        self.patient()
        report = self.suffer(delay(TIMEOUT), trickle(), sizes=(10, 100), clients=20, seconds=TIMEOUT)
        self.assertEqual((report["errors"], report["lost"]), ({}, 0))

    def test_tooSlow(self) -> None:
        """
        If a server is slower than the timeout, requests fail after that time and not later.
        """
        report = self.suffer(delay(TIMEOUT), seconds=2 * TIMEOUT)
        self.assertNotEqual(report["errors"], {})
        self.assertLess(report["slowest"], LATEST)

    def test_cut(self) -> None:
        """
        If connections are closed between replies or in the middle of them, only the requests in flight fail. Reads fail
        only if their second attempt failed too, or if a part of the value was already forwarded.
        """
        self.patient()
        report = self.suffer(cut(), cut(after=1), cut(after=1000), strikes=2)
        self.assertGreater(self.relay.faults, 3)
        # A closed connection was in the middle of the reply to one client at most.
        self.assertLessEqual(report["halved"], self.relay.faults)

    def test_reset(self) -> None:
        """
        The same if connections are reset.
        """
        self.patient()
        self.suffer(reset(), reset(after=1), reset(after=1000), strikes=2)
        self.assertGreater(self.relay.faults, 4)

    def test_silence(self) -> None:
        """
        If a server discards all requests, or does not read, requests fail after their timeout, and later ones fail
        immediately. Late replies are discarded.
        """
        report = self.suffer(BLACKHOLE, FREEZE, seconds=2 * TIMEOUT, errors=5 * CLIENTS)
        self.assertLess(report["slowest"], LATEST)

    def test_frozen(self) -> None:
        """
        The same if the server is suspended and resumed, or killed and restarted.
        """
        frozen = (self.memcached.freeze, self.memcached.thaw)
        killed = (self.memcached.kill, self.memcached.start)
        report = self.endure([frozen, killed], 2 * TIMEOUT, errors=5 * CLIENTS, misses=True)
        self.assertLess(report["slowest"], LATEST)

    def test_refuse(self) -> None:
        """
        If the server stops listening, existing connections are used. When they are closed, requests fail immediately.
        """
        self.patient()
        report = self.suffer(REFUSE)
        self.assertEqual(report["errors"], {})

        def fall() -> None:
            self.relay.set(REFUSE)
            self.relay.drop()

        report = self.endure([(fall, self.repair)], 0.3, errors=CLIENTS)
        self.assertNotEqual(report["errors"], {})
        self.assertEqual([error for error in report["errors"] if error.startswith("timed out")], [])

    def test_refusesWhileOld(self) -> None:
        """
        If the server stops listening, connections that are older than C{max-lifetime} are used too.
        """
        self.patient("--max-lifetime=0.2", "--pool-size=2")
        report = self.suffer(REFUSE, PASS, REFUSE, seconds=1.0, clients=20)
        self.assertEqual((report["errors"], report["lost"]), ({}, 0))
        stats = ask(self.proxy.address, b"stats proxy\r\n", b"END\r\n")
        self.assertIn(b"STAT outages 0\r\n", stats)
        self.assertIn(b"STAT connections_closed_too_old ", stats)

    def test_inject(self) -> None:
        """
        Inserted bytes are not taken for replies. Two kinds of bytes are excluded, because no proxy could detect them:
        bytes in a meta reply that look like a flag, and a whole C{END} at a place where a reply is expected or at the
        end of a value.
        """
        replies = (b"END \r\n", b"STORED\r\n", b"VALUE a 0 1\r\nx\r\n")
        garbage = (*replies, b"\r\n", b"\0" * 10, b"HTTP/1.1 400 Bad Request\r\n")
        self.suffer(*(inject(data, after=100) for data in garbage), strikes=2, kinds=KINDS)
        self.assertGreater(self.relay.faults, len(garbage))

    def test_duplicate(self) -> None:
        """
        Duplicated bytes are not taken for replies, if they are fewer than those of a value. More bytes are excluded: a
        range from the middle of one value to the same position of another, sent twice, makes a valid reply of parts of
        both.
        """
        for size, counts in (2000, (12, 500)), (30000, (20000,)):
            self.relay.faults = 0
            self.suffer(*(duplicate(count, after=100) for count in counts), strikes=2, kinds=KINDS, sizes=(size,))
            self.assertGreater(self.relay.faults, 1)
