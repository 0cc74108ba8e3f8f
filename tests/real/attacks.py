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
from tests.real.servers import Address, Proxy, ask, connect, raiseFileLimit
from tests.real.test_attack import memory

#: The most seconds that a request of an innocent client may take under attack.
LATENCY = 0.2

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

    def attack(
        self, *attackers: Attacker, seconds: float = 1.5, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """
        Let attackers send, and assert that an innocent client is served in time and that the process does not grow.

        @param meanwhile: called a few times during the attack.
        """
        for each in attackers:
            self.addCleanup(each.close)
        base = memory(self.proxy.pid)
        slowest, growth = 0.0, 0
        # If another process has delayed the client, the second measurement does not see that.
        for _ in range(2):
            slowest, peak = self._measure(attackers, seconds, meanwhile)
            growth = max(growth, peak - base)
            if slowest <= LATENCY:
                break
        self.assertLessEqual(slowest, LATENCY, self.proxy.log)
        self.assertLessEqual(growth, GROWTH)

    def _measure(
        self, attackers: tuple[Attacker, ...], seconds: float, meanwhile: Callable[[], object]
    ) -> tuple[float, int]:
        """
        @return: the latency of the slowest get, and the most memory of the process.
        """
        load = Load(self.proxy.address, clients=1, seconds=60.0, pause=0.01).start()
        self.addCleanup(load.kill)
        began = called = time.monotonic()
        peak = 0
        while (now := time.monotonic()) - began < seconds:
            for each in attackers:
                each.step()
            peak = max(peak, memory(self.proxy.pid))
            if now - called > seconds / 5:
                called = now
                meanwhile()
            time.sleep(0.001)
        report = load.finish()
        self.assertEqual((report["wrong"], report["errors"], report["lost"], report["closed"]), ([], {}, 0, 0))
        self.assertGreater(report["ok"], 10)
        return report["slowest"], peak

    def descriptors(self) -> int:
        """
        @return: the number of open files of the proxy.
        """
        return len(os.listdir(f"/proc/{self.proxy.pid}/fd"))
