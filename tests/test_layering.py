# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the order of the modules: imports run downwards only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SOURCE = Path(__file__).resolve().parents[1]

#: Every module, each above those that it may import.
ORDER = (
    "",
    "errors",
    "interfaces",
    "wire",
    "wire.runs",
    "wire.replies",
    "wire.classic",
    "wire.meta",
    "wire.auth",
    "wire.memcache",
    "metrics",
    "slow",
    "limits",
    "slots",
    "waiters",
    "state",
    "endpoints",
    "logs",
    "events",
    "systemd",
    "clock",
    "options",
    "login",
    "config",
    "ini",
    "reload",
    "transport",
    "unread",
    "deadlines",
    "dial",
    "core",
    "connection",
    "lease",
    "pool",
    "calls",
    "memcache",
    "parts",
    "session",
    "sessions",
    "report",
    "stats",
    "store",
    "embedded",
    "testing",
    "service",
    "channel",
    "control",
    "worker",
    "workers",
    "admin",
    "tap",
)

#: What decides without doing: plain Python, which never loads Twisted.
PURE = ("errors", "wire", "wire.memcache", "metrics", "limits", "slots", "waiters", "state")


def modules() -> dict[str, ast.Module]:
    """
    Parse all modules, by their names below C{txconnpool}.
    """
    found = {}
    for path in sorted((SOURCE / "txconnpool").rglob("*.py")):
        parts = path.relative_to(SOURCE / "txconnpool").with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = ast.parse(path.read_text("utf-8"), str(path))
    return found


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """
    Find what a module imports, in functions and for type checkers too.

    @return: the lines and the full names, of modules or of what is taken out of them.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{each.name}") for each in node.names)


def ours(name: str) -> str | None:
    """
    @return: which of our modules is imported by a full name, or C{None} if none is.
    """
    package, _, rest = name.partition(".")
    if package != "txconnpool":
        return None
    # What is not a module is a name in the one before it.
    return rest if rest in ORDER else rest.rpartition(".")[0]


def loaded(names: tuple[str, ...]) -> set[str]:
    """
    @return: all modules that are loaded by importing some of ours, in a process of its own.
    """
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    full = [f"txconnpool.{name}".rstrip(".") for name in names]
    process = subprocess.run(
        [sys.executable, "-c", code, *full], cwd=SOURCE, capture_output=True, text=True, check=True, timeout=60
    )
    return set(process.stdout.split())


class LayeringTests(SynchronousTestCase):
    """
    Tests for what our modules import.
    """

    def test_listed(self) -> None:
        """
        Every module has its place in the order.
        """
        self.assertEqual([name for name in modules() if name not in ORDER], [])

    def test_downwards(self) -> None:
        """
        A module imports only what is below it.
        """
        wrong = [
            f"{name}, line {line}: imports {below or 'txconnpool'}"
            for name, tree in modules().items()
            for line, below in ((line, ours(full)) for line, full in imported(tree))
            if below is not None and ORDER.index(below) >= ORDER.index(name)
        ]
        self.assertEqual(wrong, [])

    def test_absolute(self) -> None:
        """
        Imports are absolute, as they are in Twisted.
        """
        self.assertEqual(
            [(name, line) for name, tree in modules().items() for line, full in imported(tree) if full[0] == "."], []
        )

    def test_pure(self) -> None:
        """
        What decides without doing does not load Twisted, not even by way of another module.
        """
        self.assertEqual(sorted(name for name in loaded(PURE) if name.partition(".")[0] == "twisted"), [])

    def test_web(self) -> None:
        """
        Who serves no statistics loads no web server.
        """
        self.assertEqual(sorted(name for name in loaded(("service", "tap", "workers")) if "twisted.web" in name), [])

    def test_reactor(self) -> None:
        """
        Importing all of it installs no reactor: that is the application's choice.
        """
        everything = loaded(tuple(modules()))
        self.assertIn("txconnpool.tap", everything)
        self.assertNotIn("twisted.internet.reactor", everything)


class ToolTests(SynchronousTestCase):
    """
    Tests for the tools of this test, so that it can fail.
    """

    def test_imported(self) -> None:
        """
        Imports of any form are found.
        """
        tree = ast.parse(
            "import os, txconnpool.tap\nfrom txconnpool import wire, __version__\n"
            "def f():\n    from txconnpool.wire.memcache import Memcache\nfrom . import x"
        )
        self.assertEqual(
            [(line, name, ours(name)) for line, name in imported(tree)],
            [
                (1, "os", None),
                (1, "txconnpool.tap", "tap"),
                (2, "txconnpool.wire", "wire"),
                (2, "txconnpool.__version__", ""),
                (5, "..x", None),
                (4, "txconnpool.wire.memcache.Memcache", "wire.memcache"),
            ],
        )
