# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the documents about the source code name existing files and names.
"""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SOURCE = Path(__file__).resolve().parents[1]


def find(path: str) -> Path | None:
    """
    @return: the file or folder of a path that is relative to the checkout or to C{txconnpool}, or C{None}.
    """
    return next((each for each in (SOURCE / path, SOURCE / "txconnpool" / path) if each.exists()), None)


class DocumentTests(SynchronousTestCase):
    """
    Tests for C{txconnpool/README.rst}, and for the last chapter of C{README.rst}.
    """

    def setUp(self) -> None:
        """
        Read the documents.
        """
        readme = (SOURCE / "README.rst").read_text("utf-8")
        self.map = (SOURCE / "txconnpool" / "README.rst").read_text("utf-8")
        self.texts = (readme.partition("\nWhere to look next\n")[2], self.map)

    def test_paths(self) -> None:
        """
        Every path exists.
        """
        for text in self.texts:
            paths = re.findall(r"``([\w.]+/[\w./]*|\w+\.(?:py|rst|md))``", text)
            self.assertGreater(len(paths), 5)
            self.assertEqual([path for path in paths if find(path) is None], [])

    def test_names(self) -> None:
        """
        Every class, method and function that stands before a path in parentheses is defined in that file.
        """
        pairs = re.findall(r"``([\w.]+)``\s+\(``([\w/]+\.py)``\)", self.map)
        self.assertGreater(len(pairs), 10)
        for name, path in pairs:
            file = find(path)
            assert file is not None, path
            for part in name.split("."):
                self.assertRegex(
                    file.read_text("utf-8"), rf"(?m)^ *(?:async def|def|class) {part}\b", f"{name} in {path}"
                )

    def test_short(self) -> None:
        """
        The map of the source code is short enough to be read at once.
        """
        self.assertLessEqual(len(self.map.splitlines()), 150)
