# -*- test-case-name: tests.net.test_unsent -*-
# Copyright txconnpool contributors. See LICENSE.
"""
How many bytes of a connection its peer has not received yet.
"""

from __future__ import annotations

import struct
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # pragma: no cover  # not on Windows
    ioctl = None  # type: ignore[assignment]


def unsentOf(transport: Any) -> int:
    """
    Count the bytes that were written to a connection, and that its peer has not received yet, here and in the kernel.
    While nothing is written, the number falls whenever the peer receives something.

    The kernel takes megabytes, and reports that a socket can be written again only when a third of them is gone: for
    minutes, if the peer reads slowly.

    @param transport: the result of L{txconnpool.net.transport.adopt}.

    @return: the number, as far as it is known: where the kernel does not count its bytes (C{SIOCOUTQ} of Linux,
        C{tcp(7)} and C{unix(7)}), those of this process only; 0 for a connection inside the process.
    """
    while (under := getattr(transport, "transport", None)) is not None:  # TLS, and wrappers, are above the socket
        transport = under
    unsent = getattr(transport, "unsent", None)
    if unsent is None and isinstance(transport, FileDescriptor):
        unsent = len(transport.dataBuffer) - transport.offset + cast(Any, transport)._tempDataLen
    return int(unsent or 0) + _inKernel(transport)


def _inKernel(transport: Any) -> int:
    socket = getattr(transport, "socket", None)
    if ioctl is None or socket is None:
        return 0
    try:
        (count,) = struct.unpack("i", ioctl(socket.fileno(), TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(count)
