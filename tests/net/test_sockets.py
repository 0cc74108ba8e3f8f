# -*- test-case-name: tests.net.test_sockets -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.sockets}.
"""

from __future__ import annotations

import select
import socket
import sys
from errno import EAGAIN, ECONNRESET, EPIPE
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txconnpool import native
from txconnpool.net import sockets

#: More bytes than a socket takes at once.
BIG = b"x" * (1 << 24)


class SocketsTests(SynchronousTestCase):
    """
    Tests for the functions in Python.
    """

    if not sockets.HAS_EPOLL:
        skip = "there is no epoll"

    receive: Any = staticmethod(sockets.receiveEach)
    send: Any = staticmethod(sockets.sendJoined)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """
        @return: two connected sockets, of which the first one does not block.
        """
        ours, peer = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(peer.close)
        ours.setblocking(False)
        return ours, peer

    def reset(self) -> socket.socket:
        """
        @return: a TCP socket that the peer has reset.
        """
        with socket.create_server(("127.0.0.1", 0)) as port:
            ours = socket.create_connection(port.getsockname())
            self.addCleanup(ours.close)
            peer, _ = port.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        select.select([ours], [], [], 10)
        ours.setblocking(False)
        return ours

    def test_received(self) -> None:
        """
        The bytes of all sockets are returned in the order of the events, with the owners. A peer that has closed its
        side is returned with no bytes, and a socket that has none to read is left out.
        """
        pairs = [self.pair() for _ in range(4)]
        owners = {ours.fileno(): object() for ours, _ in pairs}
        for _, peer in pairs[:2]:
            peer.send(b"from %d" % peer.fileno())
        pairs[2][1].close()
        numbers = [ours.fileno() for ours, _ in pairs]
        arrived, others, start = self.receive([(each, sockets.IN) for each in numbers], 0, owners, 100, 1000)
        expected = [b"from %d" % peer.fileno() for _, peer in pairs[:2]] + [b""]
        self.assertEqual(arrived, [(owners[each], data) for each, data in zip(numbers, expected, strict=False)])
        self.assertEqual((others, start), ([], 0))

    def test_limits(self) -> None:
        """
        One read takes no more than a number of bytes. When enough bytes are read, the rest is left to another call.
        """
        pairs = [self.pair() for _ in range(3)]
        owners = {ours.fileno(): ours for ours, _ in pairs}
        events = [(each, sockets.IN) for each in owners]
        for _, peer in pairs:
            peer.send(b"0123456789")
        arrived, others, start = self.receive(events, 0, owners, 4, 8)
        self.assertEqual(([data for _, data in arrived], others, start), ([b"0123"] * 2, [], 2))
        arrived, others, start = self.receive(events, start, owners, 4, 8)
        self.assertEqual((arrived, others, start), ([(pairs[2][0], b"0123")], [], 0))
        self.assertEqual(self.receive(events, 0, owners, 4, 12)[2], 0)
        self.assertEqual(self.receive([], 0, owners, 4, 12), ([], [], 0))

    def test_others(self) -> None:
        """
        Sockets with other events, and those of which the owner is not known, are not read.
        """
        first, peer = self.pair()
        second, secondPeer = self.pair()
        peer.send(b"x")
        secondPeer.send(b"y")
        both = sockets.IN | select.EPOLLOUT
        events = [(first.fileno(), both), (second.fileno(), sockets.IN)]
        expected = [(first.fileno(), both, 0), (second.fileno(), sockets.IN, 0)]
        self.assertEqual(self.receive(events, 0, {first.fileno(): first}, 10, 10), ([], expected, 0))
        self.assertEqual((first.recv(10), second.recv(10)), (b"x", b"y"))

    def test_error(self) -> None:
        """
        An error is returned with its number.
        """
        ours = self.reset()
        number = ours.fileno()
        self.assertEqual(
            self.receive([(number, sockets.IN)], 0, {number: ours}, 10, 10), ([], [(number, sockets.IN, ECONNRESET)], 0)
        )

    def test_sent(self) -> None:
        """
        One piece or several are sent together.
        """
        ours, peer = self.pair()
        pieces: list[Any]
        for pieces in ([b"one"], [b"one", b" ", b"two"], [memoryview(b"three")[1:]], [memoryview(b"four"), b"five"]):
            expected = b"".join(map(bytes, pieces))
            self.assertEqual(self.send(ours.fileno(), pieces), len(expected))
            self.assertEqual(peer.recv(100), expected)

    def test_sentInPart(self) -> None:
        """
        The number of bytes that the kernel has taken is returned, or the error.
        """
        ours, peer = self.pair()
        sent = self.send(ours.fileno(), [BIG])
        self.assertTrue(0 < sent < len(BIG))
        self.assertEqual(self.send(ours.fileno(), [BIG, BIG]), -EAGAIN)
        peer.close()
        self.assertEqual(self.send(ours.fileno(), [b"x"]), -EPIPE)


class NativeSocketsTests(SocketsTests):
    """
    Tests for the functions in C.
    """

    if native.extension is None:
        skip = f"the extension is not used: {native.reason}"
    elif sockets.HAS_EPOLL:
        receive = staticmethod(native.extension.receiveEach)
        send = staticmethod(native.extension.sendJoined)

    def test_chosen(self) -> None:
        """
        They are used.
        """
        self.assertIs(sockets.chosenReceive, native.extension.receiveEach)
        self.assertIs(sockets.chosenSend, native.extension.sendJoined)

    def test_arguments(self) -> None:
        """
        Wrong arguments are errors.
        """
        wrong: tuple[Any, ...]
        for wrong in (
            (), (None, 0, {}, 1, 1), ([], None, {}, 1, 1), ([], 0, None, 1, 1), ([], 0, {}, 0, 1), ([], -1, {}, 1, 1),
            ([None], 0, {}, 1, 1), ([(1,)], 0, {}, 1, 1), ([(1, None)], 0, {}, 1, 1), ([], 0, {}, 1, 1, 1),
        ):  # fmt: skip
            self.assertRaises(TypeError, self.receive, *wrong)
        for wrong in ((), (1, None), (1, []), (None, [b"x"]), (1, [1]), (1, [b"x", 1]), (1, ["x"]), (1, [b"x"], 1)):
            self.assertRaises(TypeError, self.send, *wrong)
        self.assertRaises(OverflowError, self.receive, [(1 << 80, 1)], 0, {}, 1, 1)

    def test_references(self) -> None:
        """
        No reference is kept, and none is dropped.
        """
        ours, peer = self.pair()
        number = ours.fileno()
        pieces, events = [b"a piece", b"another piece"], [(number, sockets.IN), (number, select.EPOLLOUT)]
        owners = {number: object()}
        kept = (*pieces, *events, *owners.values(), pieces, events, owners)
        before = [sys.getrefcount(each) for each in kept]
        for _ in range(1000):
            self.send(number, pieces)
            peer.send(peer.recv(100))
            self.receive(events, 0, owners, 100, 1000)
        self.assertEqual([sys.getrefcount(each) for each in kept], before)
