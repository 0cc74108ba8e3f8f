# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the programs of the guide to the pool run unchanged, except for the addresses.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any
from unittest import skipIf
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.wire import Echo
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.documents import LIBRARY, README, blocks
from tests.real.servers import HOST, PATIENCE, SOURCE, Memcached, Redis, Twistd, ask, freePort, missing, withPorts

_PART = re.compile(r"^(?P<heading>\S.*)\n={3,}\n|^\.\. code-block:: python\n\n(?P<code>(?: +\S.*\n|\n)+)", re.MULTILINE)


def programs(text: str) -> dict[str, str]:
    """
    Find the Python programs below the headings of a document.

    @return: the programs, by heading.
    """
    found = {}
    heading = ""
    for part in _PART.finditer(text):
        if part["heading"]:
            heading = part["heading"]
        elif heading:
            found[heading] = dedent(part["code"])
    return found


class ProgramTests(TestCase):
    """
    Tests that each program has the result that the guide describes.
    """

    timeout = 240
    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Find the programs, and start a memcached.
        """
        self.programs = programs(LIBRARY.read_text("utf-8"))
        self.readme = programs(README.read_text("utf-8"))
        self.memcached = Memcached().start()
        self.addCleanup(self.memcached.kill)

    def execute(self, heading: str, *interpreter: str, port: int = 0) -> Deferred[str]:
        """
        Run the program below a heading.

        @param interpreter: options of Python.
        @param port: the port that replaces 7000.

        @return: fires with the output, when the program has ended without an error.
        """
        code = self.programs.pop(heading)
        code = withPorts(code, {"11211": self.memcached.address[1], "7000": port})
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name) / "test_program.py"
        path.write_text(code, "utf-8")

        def run() -> str:
            process = subprocess.run(
                [sys.executable, *interpreter, str(path)],
                cwd=directory.name,
                env={"PYTHONPATH": str(SOURCE)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=200,
            )
            self.assertEqual((process.returncode, process.stdout if process.returncode else ""), (0, ""))
            return process.stdout

        return deferToThread(run)

    async def test_inFiveLines(self) -> None:
        """
        The first program, which is also in the README, stores a value and gets it.
        """
        self.assertEqual(self.programs["In five lines"], self.readme["The pool in five lines"])
        self.assertEqual(await self.execute("In five lines"), "(0, b'hello')\n")

    async def test_web(self) -> None:
        """
        The web server counts, and works without memcached.
        """
        number = freePort()
        memcached = Memcached().start()
        code = self.programs.pop("In a web server")
        code = withPorts(code, {"11211": memcached.address[1], "8080": number})
        path = Path(self.mktemp()).with_suffix(".tac").absolute()
        path.write_text(code, "utf-8")
        process = Twistd(plugin=str(path), general=["-y"], address=(HOST, number))
        self.addCleanup(process.stop)
        await deferToThread(process.start)

        def get() -> bytes:
            with urlopen(f"http://{HOST}:{number}/", timeout=PATIENCE) as response:
                content: bytes = response.read()
                return content

        self.assertEqual(await deferToThread(get), b"visit 1")
        self.assertEqual(await deferToThread(get), b"visit 2")
        memcached.kill()
        self.assertEqual(await deferToThread(get), b"welcome")

    async def test_preparing(self) -> None:
        """
        The functions of the pool are called, and the observer gets the events, in the order that the guide shows.
        """
        number = freePort()
        port = await TCP4ServerEndpoint(reactor, number, interface=HOST).listen(Factory.forProtocol(Echo))
        self.addCleanup(port.stopListening)
        heading = "Preparing, checking and cleaning connections"
        _, expected = blocks(LIBRARY, heading)
        self.assertEqual(await self.execute(heading, port=number), expected)

    async def test_servers(self) -> None:
        """
        The pool of several servers finds the key again, on one of them.
        """
        found, server = (await self.execute("With several servers")).splitlines()
        self.assertEqual(found, "{'greeting': (0, b'hello'), 'parting': (0, None)}")
        self.assertIn(server, ("memory:name=a", "memory:name=b"))

    async def test_memcached(self) -> None:
        """
        The calls beyond memcached's commands have the results that the guide describes.
        """
        lines = (await self.execute("For memcached")).splitlines()
        self.assertEqual(lines[:3], ["computed", "{'name': 'Ada'}", "{'name': 'Ada'}"])
        self.assertEqual(lines[3:], ["a 1", "b [2]", "c None", "1", "2"])

    async def test_redis(self) -> None:
        """
        The calls of a Redis client have the results that the guide describes.
        """
        reason = missing("redis-server")
        if reason:
            self.skipTest(reason)
        server = Redis().start()
        self.addCleanup(server.stop)
        self.programs["For Redis"] = withPorts(self.programs["For Redis"], {"6379": server.address[1]})
        lines = (await self.execute("For Redis")).splitlines()
        self.assertEqual(lines, ["[5, 1]", "[0, 2, ['red', 'green']]", "message it rains", "int"])

    async def test_protocol(self) -> None:
        """
        The pool of a custom protocol talks to an echo server.
        """
        number = freePort()
        port = await TCP4ServerEndpoint(reactor, number, interface=HOST).listen(Factory.forProtocol(Echo))
        self.addCleanup(port.stopListening)
        self.assertEqual(await self.execute("A protocol of your own", port=number), "b'one'\nb'two' b'three'\n")

    async def test_quiet(self) -> None:
        """
        The HTTP client gets the bodies of two pages of a server of Twisted, on one connection.
        """

        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                request.setHeader(b"content-length", b"%d" % len(request.path))
                return bytes(request.path)

        number = freePort()
        port = await TCP4ServerEndpoint(reactor, number, interface=HOST).listen(Site(Page()))
        self.addCleanup(port.stopListening)
        output = await self.execute("A client that is not free at once", port=number)
        self.assertEqual(output, "HTTP/1.1 200 OK /one\nHTTP/1.1 200 OK /two\n")

    async def test_failure(self) -> None:
        """
        The program continues without its cache.
        """
        output = await self.execute("When servers fail")
        self.assertEqual(output, "upstream unavailable: connection refused (tcp:127.0.0.1:1)\nb'42'\n")

    async def test_testing(self) -> None:
        """
        The tests pass.
        """
        self.assertIn("PASSED (successes=5)", await self.execute("Testing your program", "-m", "twisted.trial"))

    @skipIf(missing("redis-server"), "redis-server is not installed")
    async def test_txredisapi(self) -> None:
        """
        The program for those who come from txredisapi runs.
        """
        server = Redis().start()
        self.addCleanup(server.stop)
        heading = "Coming from txredisapi"
        self.programs[heading] = withPorts(self.programs[heading], {"6379": server.address[1]})
        self.assertEqual(await self.execute(heading), "42\n[0, 1, 1]\n")

    async def test_testingRedis(self) -> None:
        """
        The tests with Redis pass.
        """
        output = await self.execute("Testing a program with Redis", "-m", "twisted.trial")
        self.assertIn("PASSED (successes=5)", output)

    async def test_testingSeveral(self) -> None:
        """
        The tests with several pools and with a protocol of one's own pass.
        """
        output = await self.execute("Testing several pools and other protocols", "-m", "twisted.trial")
        self.assertIn("PASSED (successes=2)", output)

    async def test_migration(self) -> None:
        """
        The program for 0.1.2 runs.
        """
        ask(self.memcached.address, b"set greeting 5 0 2\r\nhi\r\n")
        self.assertEqual(await self.execute("Coming from 0.1.2"), "(5, b'hi')\n")

    @skipIf(find_spec("mypy") is None, "mypy is not installed: pip install 'txconnpool[dev]'")
    def test_types(self) -> None:
        """
        C{mypy --strict} finds nothing in the programs of the guide and of the README, and knows the types of results.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        typed = {
            "revealed": """
                from txconnpool import MemCachePool, PoolStats

                async def types(pool: MemCachePool) -> None:
                    _, value = await pool.get("k")
                    reveal_type(value)
                    reveal_type(await pool.gets("k"))
                    reveal_type(await pool.get("k", withIdentifier=True))
                    reveal_type(await pool.getMultiple(["k"]))
                    reveal_type(await pool.increment("k"))
                    reveal_type(await pool.set("k", b""))
                    reveal_type(pool.stats.idle)
            """,
        }
        for name, code in (self.programs | self.readme | typed).items():
            (Path(directory.name) / f"{re.sub('[^a-z]', '_', name.lower())}.py").write_text(dedent(code), "utf-8")
        cache = SOURCE / ".mypy_cache" / "programs"
        process = subprocess.run(
            # Many functions of Twisted have no types yet, which is an error of each call of them otherwise.
            [
                sys.executable,
                "-m",
                "mypy",
                "--strict",
                "--allow-untyped-calls",
                "--config-file=",
                f"--cache-dir={cache}",
                ".",
            ],
            cwd=directory.name,
            env={"PATH": ""},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        self.assertEqual((process.returncode, process.stderr), (0, ""), process.stdout)
        self.assertEqual(
            re.findall(r'Revealed type is "(.*)"', process.stdout),
            [
                "bytes | None",
                "tuple[int, bytes, bytes | None]",
                "tuple[int, bytes, bytes | None]",
                "dict[str, tuple[int, bytes | None]]",
                "int",
                "bool",
                "int",
            ],
        )

    test_types.timeout = 1300  # type: ignore[attr-defined]

    def test_all(self) -> None:
        """
        Every program has a test.
        """
        tests = sum(name.startswith("test_") for name in vars(ProgramTests)) - len(("test_all", "test_types"))
        self.assertEqual(len(self.programs), tests)
