# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire import Command


class CommandTests(SynchronousTestCase):
    """
    Tests for the defaults of L{Command}.
    """

    def test_plain(self) -> None:
        """
        A plain command shows its replies, is not sent again, and its requests are not kept.
        """
        command = Command("ping", 0)
        self.assertEqual((command.visible(b"pong"), command.idempotent, command.keepsRequest), (b"pong", False, False))
        self.assertIs(command.part, command)
        self.assertEqual(repr(command), "<Command ping>")

    def test_idempotent(self) -> None:
        """
        A request that may be sent again is kept.
        """
        self.assertTrue(Command("ping", 0, idempotent=True).keepsRequest)

    def test_notSupported(self) -> None:
        """
        A dialect must define what its requests are used for. The error names the command.
        """
        command = Command("ping", 0)
        for call, text in (
            (lambda: command.keys(b""), "ping has no keys"),
            (lambda: command.subset(b"", []), "ping is never divided"),
            (lambda: command.values([], b""), "ping is never divided"),
            (lambda: command.gather([], [], False), "ping is never divided"),
            (lambda: command.divide(b"", 1), "ping is never merged"),
            (lambda: command.join([]), "ping is never broadcast"),
            (lambda: command.withoutEnd(b""), "ping is never split"),
        ):
            self.assertEqual(str(self.assertRaises(NotImplementedError, call)), text)
