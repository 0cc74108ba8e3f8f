# Copyright txconnpool contributors. See LICENSE.
"""
Attacks with requests that are cheap to send and expensive to answer.
"""

from __future__ import annotations

import time

from tests.real.attacks import ATTACKERS, Attacker, SecurityTestCase
from tests.real.servers import HOST, Address, Proxy, freePort, serverEndpoint
from txconnpool.wire.memcache.requestreader import RETRIEVAL_LINE_MAX, RETRIEVAL_WORDS_MAX


class OneIsDown(Proxy):
    """
    A proxy with three pools. The servers of two of them do not run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down: tuple[Address, Address] = ((HOST, freePort()), (HOST, freePort()))

    def command(self) -> list[str]:
        """
        Write the ini file, and name no other address.
        """
        ini = self.directory / "connpool.ini"
        ini.write_text(
            f"[pool:up]\nupstream = memory:\nlisten = {serverEndpoint(self.address)}\n"
            f"[pool:down]\nupstream = unix:{self.directory}/nothing\nlisten = {serverEndpoint(self.down[0])}\n"
            f"[pool:shards]\nupstream =\n    unix:{self.directory}/a\n    unix:{self.directory}/b\n"
            f"listen = {serverEndpoint(self.down[1])}\n"
        )
        return [*super(Proxy, self).command(), "--config", str(ini)]


class RequestsTests(SecurityTestCase):
    """
    Tests with requests that the proxy answers itself.
    """

    proxy: OneIsDown

    def newProxy(self) -> OneIsDown:
        """
        @return: the proxy.
        """
        return OneIsDown()

    def attackers(self, address: Address, data: bytes) -> list[Attacker]:
        """
        @return: attackers of whom half read the replies.
        """
        return [Attacker(address, b"", data * (65536 // len(data)), reads=n % 2 > 0) for n in range(ATTACKERS)]

    def test_invalid(self) -> None:
        """
        Attackers send the shortest invalid requests: 65,000 fit in one read.
        """
        for request in (b"\n", b"incr a x\n"):
            self.attack(*self.attackers(self.proxy.address, request))

    def test_down(self) -> None:
        """
        Attackers send requests while the servers of their pool are down. Other pools are not affected.
        """
        requests = (b"mn\n", b"get a\n", b"get a b\n", b"md a q\n", b"flush_all\n")
        for address in self.proxy.down:
            each = [self.attackers(address, request)[: ATTACKERS // len(requests)] for request in requests]
            attackers = [attacker for some in each for attacker in some]
            self.attack(*attackers)
            for attacker in attackers:
                attacker.close()

    def test_words(self) -> None:
        """
        Attackers let lines with very many keys, or spaces, end at the same time.
        """
        size = RETRIEVAL_LINE_MAX - 10
        for line in (b"get " + b" " * size, b"get" + b" a" * (size // 2), b"get" + b" a" * RETRIEVAL_WORDS_MAX):
            self._together([Attacker(self.proxy.address, line) for _ in range(ATTACKERS)])

    def _together(self, attackers: list[Attacker]) -> None:
        deadline = time.monotonic() + 1.0
        while any(each.lost < 0 or each.left for each in attackers) and time.monotonic() < deadline:
            for each in attackers:
                each.step()

        def end() -> None:
            for each in attackers:
                each.add(b"\r\n")

        self.attack(*attackers, meanwhile=end)
