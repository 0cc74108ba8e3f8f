# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.options}.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.kinds import Choice, Whole
from txconnpool.config.options import option, optionsOf


@dataclass(frozen=True)
class Example:
    """
    Settings as L{txconnpool.config.settings} declares them.
    """

    name: str = "no option"
    poolSize: int = option(4, Whole(1, 9), "most connections", "Pool", "s")
    colors: tuple[str, ...] = option(("red",), Choice("red", "blue"), "colors", "Look", many=True)
    shape: str | None = option(None, Choice("round"), "shape", "Look", fixed=True)


class OptionTests(SynchronousTestCase):
    """
    Tests for L{option} and L{optionsOf}.
    """

    def setUp(self) -> None:
        """
        Make the options of L{Example}.
        """
        self.size, self.colors, self.shape = optionsOf(Example)

    def test_declared(self) -> None:
        """
        A declared setting has the field's default, and a name with hyphens for capital letters.
        """
        self.assertEqual(Example(), Example("no option", 4, ("red",), None))
        self.assertEqual(
            (self.size.name, self.size.attribute, self.size.default, self.size.short, self.size.many),
            ("pool-size", "poolSize", 4, "s", False),
        )
        self.assertEqual([each.fixed for each in (self.size, self.colors, self.shape)], [False, False, True])

    def test_one(self) -> None:
        """
        A setting with one value accepts one text.
        """
        self.assertEqual(self.size.parse(["7"]), 7)
        self.assertIn("expected one line", str(self.assertRaises(ValueError, self.size.parse, ["7", "8"])))

    def test_many(self) -> None:
        """
        The value of a setting that may be repeated is a tuple of one or more different values.
        """
        self.assertEqual(self.colors.parse(["red", "blue"]), ("red", "blue"))
        self.assertIn("only once", str(self.assertRaises(ValueError, self.colors.parse, ["red", "red"])))
        for value in ((), "red", ["red"], None):
            self.assertIn("one or more", str(self.assertRaises(ValueError, self.colors.checkValue, value)))

    def test_whichOfMany(self) -> None:
        """
        The error for several values has the wrong one.
        """
        self.assertIn("'green'", str(self.assertRaises(ValueError, self.colors.parse, ["red", "green"])))

    def test_nothing(self) -> None:
        """
        A setting whose default is C{None} may be empty, others may not.
        """
        self.assertIsNone(self.shape.parse([""]))
        self.shape.checkValue(None)
        self.assertRaises(ValueError, self.size.parse, [""])
        self.assertRaises(ValueError, self.size.checkValue, None)

    def test_show(self) -> None:
        """
        A value is shown as in an ini file.
        """
        self.assertEqual(self.size.show(4), "4")
        self.assertEqual(self.colors.show(("red", "blue")), "red\nblue")
        self.assertEqual(self.shape.show(None), "")
