# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.document}.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.migrate.document import Document, MigrationError


class YamlTests(SynchronousTestCase):
    """
    Tests for YAML.
    """

    def test_lines(self) -> None:
        """
        A value has the line of its key, an element of a list its own.
        """
        document = Document("a.yml", "# first\nalpha:\n  listen: 127.0.0.1:1\n  servers:\n   - a:1:1\n\n   - b:2:1 x\n")
        self.assertFalse(document.isJson)
        alpha = document.root.fields["alpha"]
        self.assertEqual((alpha.line, alpha.fields["listen"].line), (2, 3))
        servers = alpha.fields["servers"]
        self.assertEqual((servers.line, [each.line for each in servers.items]), (4, [5, 7]))
        self.assertEqual([each.text for each in servers.items], ["a:1:1", "b:2:1 x"])
        self.assertEqual(document.original(7), "- b:2:1 x")

    def test_texts(self) -> None:
        """
        All scalars are texts as they are written.
        """
        fields = Document("a.yml", "a: 010\nb: yes\nc: '{}'\nd:\ne: null\n").root.fields
        self.assertEqual([each.text for each in fields.values()], ["010", "yes", "{}", "", "null"])
        self.assertEqual([each.quoted for each in fields.values()], [False, False, True, False, False])

    def test_twice(self) -> None:
        """
        A key that is given twice is a problem, and its first value is kept.
        """
        document = Document("a.yml", "a: 1\nb: 2\na: 3\n")
        self.assertEqual(document.problems, ["a.yml:3: a is given twice, first in line 1"])
        self.assertEqual(document.root.fields["a"].text, "1")
        error = self.assertRaises(MigrationError, document.check)
        self.assertEqual(str(error), "a.yml:3: a is given twice, first in line 1")

    def test_key(self) -> None:
        """
        A key that is no word is a problem.
        """
        document = Document("a.yml", "? [1, 2]\n: 3\n")
        self.assertEqual(document.problems, ["a.yml:1: a key is a list or a mapping; expected a word"])

    def test_wrong(self) -> None:
        """
        Wrong syntax has the line of the error.
        """
        for text, expected in (
            ("a: 1\n b: 2\n", r"a\.yml:2: mapping values are not allowed here"),
            ("a:\n\t- b\n", r"a\.yml:2: .*cannot start any token"),
            ("a: [1\nb: 2", r"a\.yml:2: "),
            ("a: &x *y", r"a\.yml:1: "),
            ("", r"a\.yml: is empty"),
            ("a: \x00", r"a\.yml: is not a text: "),
            ("[" * 5000, r"a\.yml: too many levels"),
        ):
            error = self.assertRaises(MigrationError, Document, "a.yml", text)
            self.assertRegex(str(error), expected)

    def test_missing(self) -> None:
        """
        Without PyYAML the error says how to install it.
        """
        with patch.dict(sys.modules, {"yaml": None}):
            error = self.assertRaises(MigrationError, Document, "a.yml", "a: 1")
        self.assertIn("pip install PyYAML", str(error))


class JsonTests(SynchronousTestCase):
    """
    Tests for mcrouter's JSON.
    """

    def test_comments(self) -> None:
        """
        Comments of both kinds are left out where they are not in strings, and lines keep their numbers.
        """
        document = Document(
            "m.json",
            '// "first" /*\n{ /* "a": 1,\n*/"b": "// \\" /* no */", // end\n'
            '\t"c": [1, 2.5, true, null, {},], }\n/* open',
        )
        self.assertTrue(document.isJson)
        fields = document.root.fields
        self.assertEqual(list(fields), ["b", "c"])
        self.assertEqual((fields["b"].text, fields["b"].line), ('// " /* no */', 3))
        self.assertEqual(str(fields["c"]), "[1, 2.5, true, null, {}]")
        self.assertEqual(fields["c"].line, 4)

    def test_compact(self) -> None:
        """
        No spaces are needed.
        """
        self.assertEqual(str(Document("m.json", '{"a":{"b":["c","d"]}}').root), '{a: {b: ["c", "d"]}}')

    def test_long(self) -> None:
        """
        Of a long line, only the beginning is quoted.
        """
        document = Document("m.json", '{"a": "' + "x" * 1000 + '"}')
        self.assertEqual(document.original(1), '{"a": "' + "x" * 153 + " ...")

    def test_wrong(self) -> None:
        """
        Wrong syntax has the line of the error.
        """
        error = self.assertRaises(MigrationError, Document, "m.json", '{"a": 1,\n "b": 2\n "c": 3}')
        self.assertRegex(str(error), r"^m\.json:3: while parsing a flow mapping expected ',' or '}'")


class NodeTests(SynchronousTestCase):
    """
    Tests for L{txconnpool.migrate.document.Node}.
    """

    def test_items(self) -> None:
        """
        A value that is no list is a list of itself, and nothing is an empty list.
        """
        fields = Document("a.yml", "a: x\nb: ''\nc: {d: 1}\ne: [f, g]\nh: []\n").root.fields
        self.assertEqual([len(fields[key].items) for key in "abceh"], [1, 0, 1, 2, 0])
        self.assertEqual(fields["a"].fields, {})
        self.assertIsNone(fields["c"].text)
