# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the layers of the package: each room imports only the rooms below it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SOURCE = Path(__file__).resolve().parents[1]

#: The rooms that each room may import, or single modules of them if it needs no more. A room may always import itself.
#: A package and its modules are one room; "wire" stands for C{txconnpool.wire} itself, without the dialects in it.
ROOMS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "metrics": (),
    "native": (),
    "nosuchcommand": ("errors",),
    "interfaces": ("errors", "metrics"),
    "wire": ("errors", "interfaces", "metrics", "native"),
    "wire.memcache": ("errors", "interfaces", "metrics", "native", "wire"),
    "wire.redis": ("errors", "interfaces", "metrics", "native", "wire"),
    "wire.dialects": ("wire", "wire.memcache", "wire.redis"),
    "net": ("errors", "interfaces", "metrics", "native"),
    "pool.decisions": ("errors", "metrics"),
    "pool": ("errors", "interfaces", "metrics", "wire", "net", "pool.decisions"),
    "config": (
        "errors",
        "interfaces",
        "metrics",
        "wire",
        "wire.dialects",
        "net",
        "routing.cluster",
        "routing.distribution",
        "routing.servers",
    ),
    "proxy": (
        "errors",
        "interfaces",
        "metrics",
        "wire",
        "net",
        "pool",
        "pool.decisions",
        "routing",
        "routing.cluster",
        "routing.servers",
        "config.changes",
        "config.settings",
        "config.credentials",
    ),
    "routing.hashing": ("native",),
    "routing.distribution": ("native", "routing.hashing"),
    "routing.servers": ("net", "routing.distribution"),
    "routing.cluster": ("net.tlswords", "wire", "routing.distribution"),
    "routing": (
        "errors",
        "interfaces",
        "metrics",
        "wire",
        "net",
        "pool",
        "pool.decisions",
        "routing.hashing",
        "routing.distribution",
        "routing.cluster",
        "routing.servers",
    ),
    "operate": (
        "",
        "errors",
        "interfaces",
        "metrics",
        "native",
        "wire",
        "wire.dialects",
        "net",
        "pool",
        "pool.decisions",
        "config",
        "proxy",
    ),
    # The faces: what users import.
    "": (),
    "memcache": (
        "errors",
        "interfaces",
        "metrics",
        "wire",
        "wire.memcache",
        "net",
        "pool",
        "pool.decisions",
        "routing",
        "routing.servers",
    ),
    "redis": (
        "errors",
        "interfaces",
        "metrics",
        "wire",
        "wire.redis",
        "net",
        "pool",
        "pool.decisions",
        "routing",
        "routing.servers",
    ),
    "service": ("operate", "pool"),
    "testing": ("errors", "interfaces", "metrics", "net", "pool", "pool.decisions", "memcache", "redis", "routing"),
    "tap": ("", "errors", "config", "net", "operate"),
    "migrate": ("config.kinds", "routing.hashing", "routing.distribution"),
}

#: What the public names of a room are made of, if that is above the room: it is imported when a name is used.
FACES = {
    "": ("config", "errors", "interfaces", "memcache", "metrics", "pool", "redis", "service", "testing"),
    "errors": ("nosuchcommand",),
    "pool": ("routing.requests",),
}

#: Modules that make decisions without I/O. They never import Twisted, not even through another module.
PURE = (
    "errors",
    "metrics",
    "wire",
    "wire.memcache",
    "wire.redis",
    "wire.dialects",
    "pool.decisions",
    "routing.hashing",
    "routing.distribution",
    "routing.cluster",
)


@cache
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
    @return: the module of txconnpool that a full name refers to, or C{None} if it is not one of txconnpool.
    """
    package, _, rest = name.partition(".")
    if package != "txconnpool":
        return None
    # What is not a module is a name in the one before it.
    return rest if rest in modules() else rest.rpartition(".")[0]


def room(module: str) -> str:
    """
    @return: the room that a module is in: the longest name in L{ROOMS} that its own begins with.
    """
    while module and module not in ROOMS:
        module = module.rpartition(".")[0]
    return module


def allowed(module: str, below: str) -> bool:
    """
    @return: whether C{module} may import the module C{below}.
    """
    return room(below) == room(module) or any(name in ROOMS[room(module)] for name in (below, room(below)))


def loaded(names: tuple[str, ...]) -> set[str]:
    """
    @return: all modules that are loaded by importing some modules of txconnpool, in a new process.
    """
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    full = [f"txconnpool.{name}".rstrip(".") for name in names]
    process = subprocess.run(
        [sys.executable, "-c", code, *full], cwd=SOURCE, capture_output=True, text=True, check=True, timeout=600
    )
    return set(process.stdout.split())


class LayeringTests(SynchronousTestCase):
    """
    Tests for the imports of the modules.
    """

    def test_rooms(self) -> None:
        """
        Every module is in a room, and every room has a module.
        """
        self.assertEqual({room(name) for name in modules()}, set(ROOMS))
        self.assertEqual([name for name in modules() if name and not room(name)], [])

    def test_oneWay(self) -> None:
        """
        A module imports only what its room may import.
        """
        wrong = [
            f"{name}, line {line}: imports {below or 'txconnpool'}"
            for name, tree in modules().items()
            for line, below in ((line, ours(full)) for line, full in imported(tree))
            if below is not None and not allowed(name, below) and below not in FACES.get(name, ())
        ]
        self.assertEqual(wrong, [])

    def test_noCircles(self) -> None:
        """
        No two rooms may import each other, directly or through other rooms.
        """
        above: set[str] = set()
        left = dict(ROOMS)
        while left:
            lowest = {name for name, may in left.items() if {room(each) for each in may} - {name} <= above}
            self.assertTrue(lowest, f"a circle among {sorted(left)}")
            above |= lowest
            left = {name: may for name, may in left.items() if name not in lowest}

    def test_headers(self) -> None:
        """
        The tests that the first line of a file names exist.
        """
        headers = [
            (str(path.relative_to(SOURCE)), name)
            for folder in ("txconnpool", "twisted", "tests")
            for path in sorted((SOURCE / folder).rglob("*.py"))
            for name in re.findall(r"\A# -\*- test-case-name: (\S+) -\*-\n", path.read_text("utf-8"))
        ]
        self.assertGreater(len(headers), 300)
        places = {name: SOURCE.joinpath(*name.split(".")) for _, name in headers}
        known = {name for name, place in places.items() if place.is_dir() or place.with_suffix(".py").is_file()}
        self.assertEqual([header for header in headers if header[1] not in known], [])

    def test_absolute(self) -> None:
        """
        All imports are absolute, as in Twisted.
        """
        self.assertEqual(
            [(name, line) for name, tree in modules().items() for line, full in imported(tree) if full[0] == "."], []
        )

    def test_pure(self) -> None:
        """
        Modules that make decisions without I/O do not import Twisted, not even through another module.
        """
        trees = modules()
        wrong = []
        seen: set[str] = set()
        following = [name for name in trees if any(f"{name}.".startswith(f"{pure}.") for pure in PURE)]
        while following:
            name = following.pop()
            if name in seen:
                continue
            seen.add(name)
            for line, full in imported(trees[name]):
                below = ours(full)
                if below in FACES.get(name, ()):
                    continue
                if below is not None:
                    following.append(below)
                elif full.partition(".")[0] in ("twisted", "zope"):
                    wrong.append(f"{name}, line {line}: imports {full}")
        self.assertEqual(wrong, [])

    def test_pureInProcess(self) -> None:
        """
        A program that only uses a parser does not load Twisted.
        """
        self.assertEqual(sorted(name for name in loaded(("wire.dialects",)) if name.partition(".")[0] == "twisted"), [])

    def test_web(self) -> None:
        """
        A program without statistics does not load a web server.
        """
        self.assertEqual(
            [
                name
                for name in loaded(("service", "tap", "operate.workers.supervisor"))
                if re.search(r"twisted\.web|operate\.http", name)
            ],
            [],
        )

    def test_reactor(self) -> None:
        """
        Importing all modules installs no reactor, because the application chooses it.
        """
        everything = loaded(tuple(modules()))
        self.assertIn("txconnpool.tap", everything)
        self.assertNotIn("twisted.internet.reactor", everything)


class ToolTests(SynchronousTestCase):
    """
    Tests for the helper functions of these tests.
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
