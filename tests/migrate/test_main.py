# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.__main__}.
"""

from __future__ import annotations

import re
import shlex
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.migrate.__main__ import main

YAML = "alpha:\n  listen: 127.0.0.1:22121\n  timeout: 1\n  servers:\n  - a:1:1\n"


class CommandTests(SynchronousTestCase):
    """
    Tests for the command.
    """

    def run_(self, *arguments: str, stdin: str = "") -> int:
        """
        Run the command, and keep its output.
        """
        self.out, self.err = StringIO(), StringIO()
        return main(arguments, StringIO(stdin), self.out, self.err)

    def test_convert(self) -> None:
        """
        The ini file goes to standard output, and a summary to standard error.
        """
        path = Path(self.mktemp())
        path.write_text(YAML)
        self.assertEqual(self.run_("--port-offset", "1000", str(path)), 0)
        self.assertTrue(self.out.getvalue().startswith(f"# Settings of txconnpool, from {path} of twemproxy"))
        self.assertIn("[pool:alpha]\n# listen: 127.0.0.1:22121\nlisten = tcp:23121:", self.out.getvalue())
        self.assertEqual(
            self.err.getvalue(), f"{path}: 1 pool with 1 server taken over, everything has an equivalent\n"
        )

    def test_command(self) -> None:
        """
        The first lines of the ini file have the command that writes the same file again.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        yml, json = directory / "a pool.yml", directory / "mc.json"
        yml.write_text(YAML)
        json.write_text('{"pools": {"A": {"servers": ["a:1"]}}, "route": "PoolRoute|A"}')
        for path, options, expected in (
            (yml, [], []),
            (yml, ["--port-offset", "1000", "--port", "5000"], ["--port-offset=1000"]),
            (yml, ["--port-offset", "-1"], ["--port-offset=-1"]),
            (json, ["--port", "5000"], ["--port=5000"]),
            (json, ["--port-offset=7", "--port=5000"], ["--port-offset=7", "--port=5000"]),
        ):
            self.assertEqual(self.run_(*options, str(path)), 0)
            written = self.out.getvalue()
            (command,) = re.findall(r"by `python -m txconnpool\.migrate ([^`]*)`", re.sub(r"\n# ", " ", written))
            self.assertEqual(shlex.split(command), [*expected, str(path)])
            self.assertEqual(self.run_(*shlex.split(command)), 0)
            self.assertEqual(self.out.getvalue(), written)

    def test_stdin(self) -> None:
        """
        A configuration may come from standard input, and mcrouter's is recognized.
        """
        json = '{"pools": {"A": {"servers": ["a:1"]}}, "route": "PoolRoute|A"}'
        self.assertEqual(self.run_("--port", "5000", "-", stdin=json), 0)
        self.assertIn("from <stdin> of mcrouter", self.out.getvalue())
        self.assertIn("listen = tcp:5000:", self.out.getvalue())

    def test_nothing(self) -> None:
        """
        The exit status says if there is no pool.
        """
        self.assertEqual(self.run_("-", stdin=YAML.replace("timeout: 1", "redis: true\n  redis_db: 16")), 1)
        self.assertIn("1 pool commented out (alpha)", self.err.getvalue())

    def test_wrong(self) -> None:
        """
        Errors go to standard error, and nothing to standard output.
        """
        latin = Path(self.mktemp())
        latin.write_bytes(b"a: \xe9")
        for arguments, stdin, expected in (
            (
                ["-"],
                "alpha:\n  listen: x\n",
                r"^<stdin>:2: alpha: listen: x: .*\n<stdin>:1: alpha: has no servers; .*\n$",
            ),
            (["/nowhere.yml"], "", r"^/nowhere\.yml: cannot be read: No such file or directory\n$"),
            ([str(latin)], "", r"is not UTF-8 text: .* at byte 3\n$"),
            ([], "", r"^usage: (.|\n)*error: expected one FILE, or --verify OLD NEW\n$"),
            (["a", "b"], "", r"expected one FILE, or --verify OLD NEW\n$"),
            (["--verify", "a"], "", r"--verify needs OLD and NEW, and perhaps the number of KEYS\n$"),
            (["--verify", "a", "b"], "", r"^a: expected HOST:PORT, or the path of a UNIX socket\n$"),
            (["--verify", "a:1", "b:1", "0"], "", r"^KEYS 0: expected a number from 1 to 10000000\n$"),
            (["--verify", "/nowhere", "/n"], "", r"^OLD /nowhere: cannot connect: No such file or directory\n$"),
            (["--port", "x", "-"], "", r"'x': expected a whole number\n$"),
            (["--qqq"], "", r"unrecognized arguments: --qqq\n$"),
        ):
            self.assertEqual(self.run_(*arguments, stdin=stdin), 2)
            self.assertRegex(self.err.getvalue(), expected)
            self.assertEqual(self.out.getvalue(), "")

    def test_help(self) -> None:
        """
        The help has examples, and all options of the usage.
        """
        self.assertEqual(self.run_("--help"), 0)
        text = self.out.getvalue()
        self.assertIn("examples:\n", text)
        self.assertIn("--verify 127.0.0.1:22121 127.0.0.1:23121\n", text)
        usage = text.partition("\n\n")[0]
        for option in set(re.findall(r"--[a-z-]+", usage)):
            self.assertRegex(text.partition("options:")[2], rf"\n  {option}\b")
