# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.workers.channel}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.workers.channel import Channel, ChannelError, ChannelLost, ignoreLost


class ChannelTests(SynchronousTestCase):
    """
    Tests for L{Channel}, with two connected ones.
    """

    def setUp(self) -> None:
        """
        Connect two channels.
        """
        self.wire: list[bytes] = []
        self.here = Channel(self.wire.append, lambda *call: ["here", *call])
        self.there = Channel(self.here.dataReceived, self.answer)
        self.later: Deferred[Any] = Deferred()

    def answer(self, name: str, *args: Any) -> Any:
        if name == "fail":
            raise ValueError("no\nway")
        return self.later if name == "later" else [name, *args]

    def carry(self, piece: int = 0) -> None:
        """
        Carry the bytes that were written, in pieces of a size.
        """
        data = b"".join(self.wire)
        self.wire.clear()
        for start in range(0, len(data), piece or len(data)):
            self.there.dataReceived(data[start : start + (piece or len(data))])

    def test_call(self) -> None:
        """
        A call is answered, with all that JSON can carry.
        """
        called = self.here.call("do", 1, "two", [3.0, None], {"four": True})
        self.assertNoResult(called)
        self.carry()
        self.assertEqual(self.successResultOf(called), ["do", 1, "two", [3.0, None], {"four": True}])

    def test_back(self) -> None:
        """
        Calls go in both directions.
        """
        called = self.there.call("do", 1)
        self.carry()
        self.assertEqual(self.successResultOf(called), ["here", "do", 1])

    def test_pieces(self) -> None:
        """
        Calls may arrive in any pieces.
        """
        for piece in (1, 7, 1000):
            first, second = self.here.call("a" * 50), self.here.call("b")
            self.carry(piece)
            self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (["a" * 50], ["b"]))

    def test_later(self) -> None:
        """
        Answers may come later, in any order.
        """
        first, second = self.here.call("later"), self.here.call("now")
        self.carry()
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second), ["now"])
        self.later.callback(5)
        self.assertEqual(self.successResultOf(first), 5)

    def test_error(self) -> None:
        """
        An exception of the other process is an error with its text.
        """
        called = self.here.call("fail")
        self.carry()
        self.assertEqual(str(self.failureResultOf(called, ChannelError).value), "no\nway")

    def test_lost(self) -> None:
        """
        When the other process ends, calls without an answer fail, and so do later calls.
        """
        before = self.here.call("later")
        self.here.lost()
        self.failureResultOf(before, ChannelLost)
        self.failureResultOf(self.here.call("now"), ChannelLost)

    def test_ignoreLost(self) -> None:
        """
        L{ignoreLost} handles L{ChannelLost}, and no other error.
        """
        called = self.here.call("later").addErrback(ignoreLost)
        failing = self.here.call("fail").addErrback(ignoreLost)
        self.carry()
        self.here.lost()
        self.assertIsNone(self.successResultOf(called))
        self.failureResultOf(failing, ChannelError)
