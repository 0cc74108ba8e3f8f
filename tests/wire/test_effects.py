# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.effects}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire.effects import ADMINISTERS, DELETES, HARMLESS, READS, WRITES, Permissions, leftOpen

ORDINARY = {
    b"ping": HARMLESS,
    b"read": READS,
    b"look": READS,
    b"write": WRITES,
    b"change": READS | WRITES,
    b"delete": DELETES,
    b"wipe": DELETES | ADMINISTERS,
}
POSSIBLE = {**ORDINARY, b"look": READS | WRITES, b"write": WRITES | DELETES}


def words(text: str) -> frozenset[bytes]:
    """
    @return: the words of a setting.
    """
    return frozenset(text.encode().split())


class PermissionsTests(SynchronousTestCase):
    """
    Tests for L{Permissions}.
    """

    def accepted(self, denied: str = "", allowed: str | None = None) -> str:
        """
        @return: the commands that are accepted, with the effects that they have without flags.
        """
        permissions = Permissions(ORDINARY, words(denied), None if allowed is None else words(allowed))
        return " ".join(name.decode() for name, its in ORDINARY.items() if permissions.permits(name, its))

    def test_unrestricted(self) -> None:
        """
        Without denied and allowed words everything is accepted.
        """
        self.assertEqual(self.accepted(), "ping read look write change delete wipe")
        self.assertFalse(Permissions(ORDINARY, frozenset(), None).restricted)
        self.assertTrue(Permissions(ORDINARY, frozenset(), frozenset()).restricted)
        self.assertTrue(Permissions(ORDINARY, words("read"), None).restricted)

    def test_denied(self) -> None:
        """
        A request is refused if its command or one of its effects is denied.
        """
        self.assertEqual(self.accepted("read wipe"), "ping look write change delete")
        self.assertEqual(self.accepted("@write"), "ping read look delete wipe")
        self.assertEqual(self.accepted("@delete"), "ping read look write change")
        self.assertEqual(self.accepted("@read @write @delete @admin"), "ping")
        self.assertEqual(self.accepted("ping @admin"), "read look write change delete")

    def test_allowed(self) -> None:
        """
        If only some words are allowed, all effects of a request must be, by themselves or with its command.
        """
        self.assertEqual(self.accepted(allowed=""), "ping")
        self.assertEqual(self.accepted(allowed="@read"), "ping read look")
        self.assertEqual(self.accepted(allowed="@read @write"), "ping read look write change")
        self.assertEqual(self.accepted(allowed="read change wipe"), "ping read change wipe")
        self.assertEqual(self.accepted("read @delete", "@read @delete write"), "ping look write")

    def test_flags(self) -> None:
        """
        A command that is allowed by its name has no more effects than without flags, unless they are allowed too.
        """
        for allowed, permitted in (("look", False), ("@write", False), ("look @write", True), ("@read @write", True)):
            permissions = Permissions(ORDINARY, frozenset(), words(allowed))
            self.assertEqual(permissions.permits(b"look", READS | WRITES), permitted, allowed)


class LeftOpenTests(SynchronousTestCase):
    """
    Tests for L{leftOpen}.
    """

    def warnings(self, denied: str, allowed: str | None = None) -> list[str]:
        """
        @return: the warnings for words of the settings.
        """
        return list(leftOpen(ORDINARY, POSSIBLE, words(denied), None if allowed is None else words(allowed)))

    def test_open(self) -> None:
        """
        A warning names the denied commands, those that can do the same, and the word that denies all.
        """
        write = (
            "deny-commands: write is denied, but clients can write with change look; @write denies that for all "
            "commands"
        )
        self.assertEqual(self.warnings("write"), [write])
        read = (
            "deny-commands: look read are denied, but clients can read with change; @read denies that for all commands"
        )
        self.assertEqual(self.warnings("look read"), [read])
        self.assertEqual(
            self.warnings("delete"),
            [
                "deny-commands: delete is denied, but clients can delete with wipe write; @delete denies that for all "
                "commands"
            ],
        )

    def test_closed(self) -> None:
        """
        There is no warning for an effect that no other command has, or that is denied for all, and none for a command
        that concerns the whole server.
        """
        for denied in ("", "ping", "wipe", "write look change read", "write @write", "delete @delete", "@read"):
            self.assertEqual(self.warnings(denied), [], denied)
        self.assertEqual(self.warnings("write", "write read"), [])
        self.assertEqual(len(self.warnings("write", "write change")), 1)
