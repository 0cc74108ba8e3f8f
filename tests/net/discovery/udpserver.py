# Copyright txconnpool contributors. See LICENSE.
"""
A UDP server that a test drives by hand.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.testing import MemoryReactorClock

#: Seconds to wait for a datagram, which usually arrives at once: on a busy machine the kernel may take longer.
PATIENCE = 30.0


class UDPServer:
    """
    A UDP socket at a free port of the loopback interface.

    @ivar address: its address.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._client: Any = None

    def receive(self) -> bytes:
        """
        @return: the next datagram, which was sent already.
        """
        data, self._client = self._socket.recvfrom(1 << 16)
        return data

    def send(self, reactor: MemoryReactorClock, data: bytes) -> None:
        """
        Send a datagram to the last client, and let it read.
        """
        self._socket.sendto(data, self._client)
        read(reactor, PATIENCE)

    def close(self) -> None:
        """
        Close the socket. Datagrams are refused from now on.
        """
        self._socket.close()


def read(reactor: MemoryReactorClock, timeout: float = 0.0) -> None:
    """
    Let all readers of a reactor read.

    @param timeout: how long to wait until one of them can.
    """
    readers: Any = list(reactor.readers)
    select.select(readers, [], [], timeout if readers else 0)
    for reader in readers:
        reader.doRead()
