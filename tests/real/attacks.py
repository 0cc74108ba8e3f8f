# Copyright txconnpool contributors. See LICENSE.
"""
Attacks on the ports of a running proxy, and what they do to an innocent client and to the memory of the process.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.real.load import Load
from tests.real.processes import memory
from tests.real.servers import Address, Proxy, ask, connect, raiseFileLimit

#: The most processor time of the proxy, in seconds, between a request of an innocent client and its reply under attack.
LATENCY = 0.2

#: The requests of an innocent client during an attack, with a pause of a hundredth of a second after each few of them.
REQUESTS = 100

#: How often something is looked at during an attack, and the seconds between.
LOOKS = 3
LOOK = 0.3

#: The most bytes by which the process may grow under an attack of L{ATTACKERS} connections.
GROWTH = 64 << 20

#: The connections of an attack.
ATTACKERS = 20


class Attacker:
    """
    Somebody who sends the same bytes again and again, reads nothing unless asked to, and connects again when he is
    disconnected.

    @ivar lost: how often he was disconnected.
    """

    def __init__(
        self,
        address: Address,
        data: bytes = b"",
        end: bytes = b"",
        reads: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        @param data: sent once.
        @param end: sent after that, again and again.
        @param reads: whether he reads.
        """
        self._address = address
        self._data, self._end, self._reads, self._tls = data, end, reads, tls
        self._socket: socket.socket | None = None
        self._left = memoryview(b"")
        self.lost = -1

    def step(self) -> None:
        """
        Send as much as the proxy accepts without waiting.
        """
        try:
            if self._socket is None:
                self._connect()
            assert self._socket is not None
            for _ in range(4):
                if not self._left:
                    self._left = memoryview(self._end)
                if self._left:
                    self._left = self._left[self._socket.send(self._left[: 1 << 16]) :]
            # Nobody notices without a read that he was disconnected.
            if (self._reads or not self._end) and self._socket.recv(1 << 16) == b"":
                self.close()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.close()

    def _connect(self) -> None:
        self.lost += 1
        self._socket = connect(self._address)
        if self._tls is not None:
            self._socket = self._tls.wrap_socket(self._socket)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        self._socket.setblocking(False)
        self._left = memoryview(self._data)

    @property
    def left(self) -> int:
        """
        How many bytes are left to be sent.
        """
        return len(self._left)

    def add(self, data: bytes) -> None:
        """
        Send more.
        """
        self._left = memoryview(bytes(self._left) + data)

    def close(self) -> None:
        """
        Disconnect.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class SecurityTestCase(SynchronousTestCase):
    """
    Base class of tests that attack a proxy in front of a C{memory:}.
    """

    skip = None if sys.platform == "linux" else "there is no /proc to look at"
    options: ClassVar[tuple[str, ...]] = ()

    def setUp(self) -> None:
        """
        Start the proxy.
        """
        raiseFileLimit()
        self.proxy = self.newProxy()
        self.addCleanup(self.proxy.stop)
        self.proxy.start()
        self.assertEqual(ask(self.proxy.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")

    def newProxy(self) -> Proxy:
        """
        @return: the proxy.
        """
        return Proxy(*self.arguments(), upstream=["memory:"])

    def arguments(self) -> list[str]:
        """
        @return: the options of the proxy.
        """
        raise NotImplementedError

    def attack(self, *attackers: Attacker, meanwhile: Callable[[], object] | None = None) -> None:
        """
        Let attackers send, and assert that an innocent client is served in time and that the process does not grow.

        @param meanwhile: called a few times during the attack.
        """
        for each in attackers:
            self.addCleanup(each.close)
        base = memory(self.proxy.pid)
        busiest, growth = 0.0, 0
        # The proxy may have worked for others after it has sent the reply, until the client was run. It is unlikely
        # that this happens in each of several measurements.
        for _ in range(4):
            busiest, peak = self._measure(attackers, meanwhile)
            growth = max(growth, peak - base)
            if busiest <= LATENCY:
                break
        self.assertLessEqual(busiest, LATENCY, self.proxy.log)
        self.assertLessEqual(growth, GROWTH)

    def _measure(self, attackers: tuple[Attacker, ...], meanwhile: Callable[[], object] | None) -> tuple[float, int]:
        """
        @return: the most processor time of the proxy until a reply, and the most memory of the process.
        """
        pid = self.proxy.pid
        load = Load(
            self.proxy.address, clients=1, requests=REQUESTS, kinds={"get": 3, "set": 1}, seconds=600.0,
            pause=0.01, watched=pid,
        ).start()  # fmt: skip
        self.addCleanup(load.kill)
        looked = time.monotonic()
        peak, looks = 0, 0 if meanwhile is None else LOOKS
        while load.running() or looks:
            for each in attackers:
                each.step()
            peak = max(peak, memory(pid))
            if meanwhile is not None and looks and time.monotonic() - looked > LOOK:
                looks -= 1
                meanwhile()
                looked = time.monotonic()
            time.sleep(0.001)
        report = load.report()
        self.assertEqual((report["wrong"], report["errors"], report["lost"], report["closed"]), ([], {}, 0, 0))
        self.assertEqual((report["ok"], report["stuck"]), (REQUESTS, 0))
        return report["busiest"], peak

    def descriptors(self) -> int:
        """
        @return: the number of open files of the proxy.
        """
        return len(os.listdir(f"/proc/{self.proxy.pid}/fd"))
