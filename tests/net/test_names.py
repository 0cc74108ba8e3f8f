# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.names}.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.names import Address, Names, namesOf


class ThreadClock(Clock):
    """
    A clock that takes calls from threads.
    """

    nameResolver: Any = None

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)


def info(*ips: str) -> list[Any]:
    """
    @return: what C{getaddrinfo} returns for a name with these addresses.
    """
    found: list[Any] = []
    for ip in ips:
        six = ":" in ip
        family = socket.AF_INET6 if six else socket.AF_INET
        found.append((family, socket.SOCK_STREAM, 6, "", (ip, 0, 0, 0) if six else (ip, 0)))
    return found


def four(ip: str) -> Address:
    return IPv4Address("TCP", ip, 0)


class NamesTests(SynchronousTestCase):
    """
    Tests for L{Names}, with a time limit of 5 seconds and at most 3 threads.
    """

    def setUp(self) -> None:
        """
        Create names whose threads run when the test says so.
        """
        self.clock = ThreadClock()
        self.threads: list[Callable[[], None]] = []
        self.known: dict[str, Any] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.names = Names(self.clock, 5.0, self.getaddrinfo, self.start, 3)

    def start(self, function: Callable[[], None]) -> None:
        self.threads.append(function)

    def getaddrinfo(self, *args: Any) -> list[Any]:
        self.asked.append(args)
        known = self.known[args[0]]
        if isinstance(known, Exception):
            raise known
        return info(*known)

    def finish(self, count: int = 1) -> None:
        """
        Let the first threads end.
        """
        for _ in range(count):
            self.threads.pop(0)()

    def text(self, looking: Any) -> str:
        return str(self.failureResultOf(looking, DNSLookupError).value)

    def test_addresses(self) -> None:
        """
        All addresses are found, in the order of C{getaddrinfo}, each only once.
        """
        self.known["h"] = ("::1", "10.0.0.2", "10.0.0.1", "::1")
        looking = self.names.lookUp("h")
        self.assertNoResult(looking)
        self.finish()
        self.assertEqual(
            self.successResultOf(looking), [IPv6Address("TCP", "::1", 0), four("10.0.0.2"), four("10.0.0.1")]
        )
        self.assertEqual(self.asked, [("h", 0, socket.AF_UNSPEC, socket.SOCK_STREAM)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_otherFamilies(self) -> None:
        """
        Other families of addresses are ignored.
        """
        self.names._getaddrinfo = lambda *args: [(socket.AF_UNIX, 1, 0, "", b"x"), *info("10.0.0.1")]
        looking = self.names.lookUp("h")
        self.finish()
        self.assertEqual(self.successResultOf(looking), [four("10.0.0.1")])

    def test_failure(self) -> None:
        """
        A name that does not exist, or that is none, is a failure with the reason.
        """
        for error, text in (
            (socket.gaierror(-2, "Name or service not known"), "DNS lookup failed: h: Name or service not known."),
            (UnicodeError("label too long"), "DNS lookup failed: h: label too long."),
        ):
            self.known["h"] = error
            looking = self.names.lookUp("h")
            self.finish()
            self.assertEqual(self.text(looking), text)

    def test_oneThread(self) -> None:
        """
        All callers for a name share a thread. When it has ended, the next caller gets a new one.
        """
        self.known["h"] = ("10.0.0.1",)
        looking = [self.names.lookUp("h") for _ in range(3)]
        self.assertEqual(len(self.threads), 1)
        self.finish()
        for each in looking:
            self.assertEqual(self.successResultOf(each), [four("10.0.0.1")])
        self.names.lookUp("h")
        self.assertEqual(len(self.threads), 1)

    def test_hang(self) -> None:
        """
        A caller waits for a limited time. While the thread hangs, there is no other one for this name, and other names
        are found. When it ends after all, those who wait then get the addresses.
        """
        self.known.update(h=("10.0.0.1",), other=("10.0.0.2",))
        looking = self.names.lookUp("h")
        self.clock.advance(4.9)
        self.assertNoResult(looking)
        self.clock.advance(0.1)
        self.assertEqual(self.text(looking), "DNS lookup failed: h: no answer in 5 s.")
        late = self.names.lookUp("h")
        other = self.names.lookUp("other")
        self.assertEqual(len(self.threads), 2)
        self.threads.pop()()
        self.assertEqual(self.successResultOf(other), [four("10.0.0.2")])
        self.finish()
        self.assertEqual(self.successResultOf(late), [four("10.0.0.1")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """
        A caller that does not wait any more leaves nothing, and others still get the addresses.
        """
        self.known["h"] = ("10.0.0.1",)
        first, second = self.names.lookUp("h"), self.names.lookUp("h")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.finish()
        self.successResultOf(second)
        third = self.names.lookUp("h")
        third.cancel()
        self.failureResultOf(third, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.finish()
        self.assertEqual(self.names._waiting, {})

    def test_bound(self) -> None:
        """
        More names than threads wait for one. A name that nobody waits for gets none.
        """
        self.known.update(dict.fromkeys("abcdef", ("10.0.0.1",)))
        looking = {name: self.names.lookUp(name) for name in "abcdef"}
        self.assertEqual(len(self.threads), 3)
        looking["d"].addErrback(lambda failure: None).cancel()
        self.finish(2)
        self.assertEqual(len(self.threads), 3)
        self.finish(3)
        self.assertEqual(sorted(args[0] for args in self.asked), ["a", "b", "c", "e", "f"])
        for name in "abcef":
            self.successResultOf(looking[name])

    def test_noThread(self) -> None:
        """
        If the system allows no more threads, the lookup fails.
        """

        def start(function: Callable[[], None]) -> None:
            raise RuntimeError("can't start new thread")

        self.names._start = start
        self.assertEqual(self.text(self.names.lookUp("h")), "DNS lookup failed: h: can't start new thread.")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_installed(self) -> None:
        """
        A resolver that the program has installed in the reactor is used.
        """
        pending: list[tuple[Any, str]] = []

        class Resolver:
            def resolveHostName(self, receiver: Any, name: str) -> None:
                receiver.resolutionBegan(None)
                pending.append((receiver, name))

        self.clock.nameResolver = Resolver()
        looking = self.names.lookUp("h")
        [(receiver, name)] = pending
        self.assertEqual((name, self.threads), ("h", []))
        for address in (four("10.0.0.1"), UNIXAddress("/x")):
            receiver.addressResolved(address)
        receiver.resolutionComplete()
        self.assertEqual(self.successResultOf(looking), [four("10.0.0.1")])

    def test_shared(self) -> None:
        """
        All pools of a reactor look names up together.
        """
        self.assertIs(namesOf(self.clock), namesOf(self.clock))
        self.assertIsNot(namesOf(self.clock), namesOf(ThreadClock()))
