# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the documents are current: what they list is what the source code has, and the files they name exist.
"""

from __future__ import annotations

import re
from pathlib import Path

import docutils.core
from twisted.trial.unittest import SynchronousTestCase

from tests.documents import LIBRARY, MANUAL, METRICS, README, SOURCE, chapter, metricsText, optionsText
from txconnpool.operate.console.commands import COMMAND_NAMES

#: The documents, by who reads them.
DOCUMENTS = (README, MANUAL, METRICS, LIBRARY, SOURCE / "txconnpool" / "README.rst", SOURCE / "CHANGES.rst")


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
        self.map = (SOURCE / "txconnpool" / "README.rst").read_text("utf-8")
        self.texts = (chapter(README, "Where to look next"), self.map)

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


class UserDocumentTests(SynchronousTestCase):
    """
    Tests for the documents that users read: C{README.rst}, the operator's manual, the list of statistics and the guide
    to the pool.
    """

    def test_short(self) -> None:
        """
        The README is short enough to be read at once.
        """
        self.assertLessEqual(len(README.read_text("utf-8").splitlines()), 300)

    def test_valid(self) -> None:
        """
        All documents are valid reStructuredText: every reference has a target, every table fits its columns.
        """
        for document in DOCUMENTS:
            # Without highlighting, which needs one more package.
            settings = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
            docutils.core.publish_doctree(document.read_text("utf-8"), str(document), settings_overrides=settings)

    def test_links(self) -> None:
        """
        Every file that a document links to exists.
        """
        for document in DOCUMENTS:
            for target in re.findall(r"<([\w./]+\.(?:rst|md|ini|json))>`_", document.read_text("utf-8")):
                self.assertTrue((document.parent / target).exists(), f"{document}: {target}")

    def test_options(self) -> None:
        """
        The manual lists every option with its default and description.
        """
        self.assertTrue(optionsText() in chapter(MANUAL, "Every option") + "\n", "run python -m tests.documents")

    def test_metrics(self) -> None:
        """
        The list of statistics is that of the table of statistics.
        """
        self.assertEqual(METRICS.read_text("utf-8"), metricsText(), "run python -m tests.documents")

    def test_commands(self) -> None:
        """
        The manual describes the commands of the console, and no others.
        """
        text = chapter(MANUAL, "The console")
        self.assertEqual(set(re.findall(r"^``([a-z]+)(?: [^`]*)?``  ", text, re.MULTILINE)), set(COMMAND_NAMES))
