# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.sections}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.migrate.document import Document
from txconnpool.migrate.sections import Migration, comment


class MigrationTests(SynchronousTestCase):
    """
    Tests for L{Migration}.
    """

    def setUp(self) -> None:
        self.migration = Migration(Document("a.yml", "a: 1"))

    def test_ini(self) -> None:
        """
        The file has the comments at its top, and a section for each pool.
        """
        section = self.migration.section("alpha")
        section.title("alpha:")
        section.remark("listen: 1")
        section.setting("listen", "tcp:1")
        section.many("upstream", [("- a:1:1", "tcp:a:1")])
        section.servers = 1
        self.migration.lost(7, None, "all is lost.")
        self.migration.lost(8, section, "this too.")
        self.assertEqual(
            self.migration.ini(["top"]),
            "# top\n\n# NOT TAKEN OVER: line 7: all is lost.\n\n# alpha:\n[pool:alpha]\n# listen: 1\nlisten = tcp:1\n"
            "upstream =\n    # - a:1:1\n    tcp:a:1\n# NOT TAKEN OVER: this too.\n",
        )
        self.assertEqual(self.migration.notes, ["a.yml:7: all is lost.", "a.yml:8: this too."])
        self.assertEqual(
            self.migration.summary(), "a.yml: 1 pool with 1 server taken over, 2 things without an equivalent"
        )

    def test_off(self) -> None:
        """
        A pool that is not taken over is commented out.
        """
        section = self.migration.section("beta")
        section.off, section.servers = True, 2
        section.many("upstream", [("- a:1:1", "tcp:a:1")])
        self.assertEqual(section.lines(), [";[pool:beta]", ";upstream =", "    # - a:1:1", ";    tcp:a:1"])
        self.assertEqual(
            self.migration.summary(),
            "a.yml: no pools with no servers taken over, 1 pool commented out (beta), everything has an equivalent",
        )

    def test_names(self) -> None:
        """
        The names of sections have allowed characters only, and each has its own.
        """
        wanted = ("a b", "a_b", "a/b", "", "x.y-z")
        self.assertEqual(
            [self.migration.section(each).name for each in wanted], ["a_b", "a_b-2", "a_b-3", "pool", "x.y-z"]
        )

    def test_comment(self) -> None:
        """
        Long comments are wrapped, but no word is broken.
        """
        self.assertEqual(comment("a" * 200), ["# " + "a" * 200])
        lines = comment("word " * 50)
        self.assertTrue(all(len(line) <= 110 and line.startswith("# ") for line in lines))
        self.assertEqual(" ".join(line[1:].strip() for line in lines).split(), ["word"] * 50)
