# -*- test-case-name: tests.net.test_sockets -*-
# Copyright txconnpool contributors. See LICENSE.
"""
System calls for many sockets, which are known by their numbers. The sockets do not block.

These functions have counterparts in C, see L{txconnpool.native}.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping, Sequence
from errno import EAGAIN, EINTR
from typing import Any, Final

from txconnpool.native import choose

#: Whether there is epoll, and with it these functions in the extension.
HAS_EPOLL: Final = hasattr(select, "epoll")

#: The bit of an epoll mask for sockets that can be read; 0 where there is no epoll.
IN: Final[int] = getattr(select, "EPOLLIN", 0)

Events = Sequence[tuple[int, int]]


def receiveEach(
    events: Events, start: int, owners: Mapping[int, Any], size: int, most: int
) -> tuple[list[tuple[Any, bytes]], list[tuple[int, int, int]], int]:
    """
    Read once from each socket that has bytes to read and no other event, in the order of their events.

    @param events: pairs of the number of a socket and an epoll mask, as C{epoll.poll} returns them.
    @param start: the index of the first event to look at.
    @param owners: the objects to which the sockets belong, by number.
    @param size: the maximum number of bytes of one read.
    @param most: no further socket is read when so many bytes were read.

    @return: three items. First the bytes that were read, with the owners; no bytes if the peer has closed its side.
        Then what is left to the caller, as number, mask and C{errno}: sockets with other events or unknown numbers,
        which are not read, and sockets that have an error. Last the index of the next event, or 0 if there is none.
    """
    arrived: list[tuple[Any, bytes]] = []
    others: list[tuple[int, int, int]] = []
    for at in range(start, len(events)):
        number, event = events[at]
        owner = owners.get(number) if event == IN else None
        if owner is None:
            others.append((number, event, 0))
            continue
        try:
            data = os.read(number, size)
        except OSError as error:
            if error.errno not in (EAGAIN, EINTR):
                others.append((number, event, error.errno or 0))
            continue
        arrived.append((owner, data))
        most -= len(data)
        if most <= 0 and at + 1 < len(events):
            return arrived, others, at + 1
    return arrived, others, 0


def sendJoined(number: int, pieces: Sequence[bytes | memoryview]) -> int:
    """
    Write several pieces with one call, as far as the kernel takes them.

    @param number: the number of the socket.
    @param pieces: at least one.

    @return: the number of bytes that were taken, or the negative C{errno}.
    """
    try:
        return os.write(number, pieces[0] if len(pieces) == 1 else b"".join(pieces))
    except OSError as error:
        return -(error.errno or EAGAIN)


chosenReceive = choose(receiveEach) if HAS_EPOLL else receiveEach
chosenSend = choose(sendJoined) if HAS_EPOLL else sendJoined
