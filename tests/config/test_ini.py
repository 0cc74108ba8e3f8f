# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.ini}, and for C{conf/connpool.ini}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.ini import load
from txconnpool.config.settings import OPTIONS, ConfigError, PoolSettings, Settings

CONF = Path(__file__).parents[2] / "conf" / "connpool.ini"


#: Characters that end lines, are spaces or digits, or have a meaning in ini files, and some of other kinds. Hypothesis
#: takes a multiple of the time of the test to choose among all characters.
CHARACTERS = (
    "".join(map(chr, range(256)))
    + "\u0130\u0301\u0663\u1680\u2003\u2028\u2029\u202e\u3000\ufeff\uff11\uffff\U0001f600\U0010ffff"
)

#: Texts that are wrong for most options.
WRONG = (
    "", " ", "x", "-1", "1.5", "1e5", "0x10", "inf", "nan", "1k", "1kb", "9999999999999999999", "\u0663", "yes", "on",
    "a b", "a,b", "=", "a=b", "\0", "\\", "@foo", "quit", "get,,set", "[::1]:11211", "tcp6:::1:11211", "0.0.0.0:22121",
    "10.0.0.1:11211:1", "tcp:a:1,tcp:b:2", "tcp", "tcp:", "tcp:x", "tcp:a:b", "tcp:a:1:2:3:4:5", "tcp:a:1:foo=1",
    "tcp:port=1:port=2", "tcp:=1", "tcp\\", "unix", "unix:", "unix:/x:mode=99x", "ssl:a", "tls:a:x", "tls:a:1:timeout=",
    "systemd:x", "systemd:domain=INET", "systemd:INET:index=x", "haproxy:", "memory:size=x", "dns:", "dns:a",
    "srv:", "elasticache:a", "fd:x", "file:", "file:/nonexistent", "file:\0", "env:", "env:TXCONNPOOL_NONEXISTENT",
    "tcp:a:1 weight=x", "tcp:a:1 foo=1", "tcp:a:70000",
)  # fmt: skip


class LoadTests(SynchronousTestCase):
    """
    Tests for L{load}.
    """

    def load(self, text: str, given: Mapping[str, Sequence[str]] | None = None) -> Settings:
        """
        Load settings from a file with some text.
        """
        self.path = self.mktemp()
        Path(self.path).write_text(text, "utf-8")
        return load(self.path, given)

    def assertProblems(self, text: str, *lines: str, given: Mapping[str, Sequence[str]] | None = None) -> None:
        """
        Assert that a file is refused with exactly these lines, in which C{FILE} stands for its path.
        """
        error = self.assertRaises(ConfigError, self.load, text, given)
        self.assertEqual(str(error).replace(self.path, "FILE").splitlines(), list(lines))

    def test_nothing(self) -> None:
        """
        Without a file and options, or with a file without keys, the settings are the defaults.
        """
        self.assertEqual(load(), Settings())
        self.assertEqual(self.load("[connpool]\n"), Settings())

    def test_paths(self) -> None:
        """
        Relative paths in the file are relative to its directory, those in options to the directory that is given.
        """
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "users").write_text("joe:secret\n", "ascii")
        (directory / "password").write_text("secret\n", "ascii")
        file = directory / "x.ini"
        file.write_text(
            "[connpool]\nadmin = unix:admin.sock:mode=600\nadmin-password-file = password\n"
            "listen-auth = file:users\nlisten = unix:./x.sock\nupstream = unix:/y\n    unix:up\\ stream weight=2\n",
            "ascii",
        )
        escaped = re.sub(r"([:\\= ])", r"\\\1", str(directory))
        settings = load(str(file), {"stats": ["unix:stats.sock"]}, "/run")
        (pool,) = settings.pools
        self.assertEqual(settings.stats, "unix:/run/stats.sock")
        self.assertEqual(settings.admin, f"unix:{escaped}/admin.sock:mode=600")
        self.assertEqual(settings.adminPasswordFile, f"{directory}/password")
        self.assertEqual(pool.listen, (f"unix:{escaped}/./x.sock",))
        self.assertEqual(pool.listenAuth, f"file:{directory}/users")
        self.assertEqual(pool.upstream, ("unix:/y", rf"unix:{escaped}/up\ stream weight=2"))

    def test_sockets(self) -> None:
        """
        The sockets of systemd need not exist if that is not asked for.
        """
        text = "[connpool]\nlisten = systemd:domain=INET:name=x\n    systemd:domain=INET:name=y\n"
        path = self.mktemp()
        Path(path).write_text(text, "ascii")
        self.assertIn("systemd gave this process no such socket", str(self.assertRaises(ConfigError, load, path)))
        self.assertEqual(len(load(path, sockets=False).pools[0].listen), 2)
        Path(path).write_text(text + "    ssl:1:privateKey=/nonexistent:endpoint=systemd\\:INET\\:name=z\n", "ascii")
        error = self.assertRaises(ConfigError, load, path, sockets=False)
        self.assertIn("/nonexistent", str(error))

    def test_onePool(self) -> None:
        """
        Without another section, [connpool] has the settings of the only pool and of the process.
        """
        self.assertEqual(
            self.load("[connpool]\npool-size = 8\ndrain-timeout = 500ms\nmax-item-size = 2m\n"),
            Settings(pools=(PoolSettings(poolSize=8, maxItemSize=2 << 20),), drainTimeout=0.5),
        )

    def test_pools(self) -> None:
        """
        Each [pool:NAME] is a pool, in the order of the file. The keys of [connpool] are the defaults of all pools.
        """
        text = """
            [pool:b]
            listen = tcp:2
            pool-size = 3
            [pool:a]
            listen = tcp:1
            [connpool]
            pool-size = 2
            upstream = tcp:h:1
        """
        upstream = ("tcp:h:1",)
        self.assertEqual(
            self.load(text).pools,
            (
                PoolSettings(name="b", listen=("tcp:2",), poolSize=3, upstream=upstream),
                PoolSettings(name="a", listen=("tcp:1",), poolSize=2, upstream=upstream),
            ),
        )

    def test_lines(self) -> None:
        """
        A value may continue in lines with more indent. There may be comments and empty lines between them.
        """
        text = """
            [connpool]
            # servers
            upstream =
                tcp:a:1

                ; the second
                tcp:b:1
            distribution=round-robin
            listen = tcp:1
                tcp:2
        """
        pool = self.load(text).pools[0]
        self.assertEqual((pool.upstream, pool.listen), (("tcp:a:1", "tcp:b:1"), ("tcp:1", "tcp:2")))

    def test_spelling(self) -> None:
        """
        Keys may have capital letters, and C{_} for C{-}. A byte order mark and the line ends of Windows are accepted.
        """
        self.path = self.mktemp()
        Path(self.path).write_bytes(b"\xef\xbb\xbf[connpool]\r\nPool_Size=9\r\n")
        self.assertEqual(load(self.path).pools[0].poolSize, 9)

    def test_empty(self) -> None:
        """
        An empty value is right only for settings whose default is no value.
        """
        self.assertEqual(self.load("[connpool]\ndistribution =\n"), Settings())
        self.assertProblems(
            "[connpool]\npool-size =", "FILE:2: [connpool] pool-size = '': expected a whole number from 1 to 65535"
        )

    def test_percent(self) -> None:
        """
        Percent signs and equals signs in values stand for themselves.
        """
        self.assertEqual(
            self.load("[connpool]\nlisten = unix:/%(x)s:mode=600").pools[0].listen[0], "unix:/%(x)s:mode=600"
        )

    def test_override(self) -> None:
        """
        Options of the command line override the file, also for several servers.
        """
        text = "[connpool]\npool-size = 8\nmax-waiting = 1\nupstream = tcp:h:1\n[pool:x]\npool-size = 9\n"
        options = {"pool-size": ["3"], "upstream": ["tcp:a:1", "tcp:b:1"], "distribution": ["round-robin"]}
        self.assertEqual(
            self.load(text, options).pools,
            (
                PoolSettings(
                    name="x", poolSize=3, maxWaiting=1, upstream=("tcp:a:1", "tcp:b:1"), distribution="round-robin"
                ),
            ),
        )

    def test_overrideAll(self) -> None:
        """
        An option of the command line applies to all pools of the file.
        """
        text = "[pool:a]\nlisten = tcp:1\npool-size = 2\n[pool:b]\nlisten = tcp:2\n"
        self.assertEqual([pool.poolSize for pool in self.load(text, {"pool-size": ["7"]}).pools], [7, 7])

    def test_overrideNotAll(self) -> None:
        """
        Servers and listeners of the command line are refused when the file has several pools.
        """
        self.assertProblems(
            "[pool:a]\nlisten = tcp:1\n[pool:b]\nlisten = tcp:2\n",
            "command line: upstream: the file has the pools a, b; expected one in each of them",
            given={"upstream": ["tcp:h:1"]},
        )

    def test_unknown(self) -> None:
        """
        An unknown key or section is an error that names the nearest known one; so is a key of the process in a pool.
        """
        self.assertProblems(
            "[connpool]\npool-sise = 4\nxyzzy = 1\n[pool:a]\ndrain-timeout = 1\n[pools:b]\nanything = 1\n[pool:a b]",
            "FILE:2: [connpool] pool-sise: no such key; did you mean pool-size?",
            "FILE:3: [connpool] xyzzy: no such key; `twistd connpool --help` lists all keys",
            "FILE:5: [pool:a] drain-timeout: is for the whole process; expected it in [connpool]",
            "FILE:6: [pools:b]: no such section; expected [connpool], or [pool:NAME] with a name of letters, digits, "
            "`_`, `.` and `-`",
            "FILE:8: [pool:a b]: no such section; expected [connpool], or [pool:NAME] with a name of letters, digits, "
            "`_`, `.` and `-`",
        )

    def test_twice(self) -> None:
        """
        A key or a section that is given twice is an error.
        """
        self.assertProblems(
            "[connpool]\npool-size = 1\npool_size = 2\n[connpool]\n",
            "FILE:3: [connpool] pool-size is given twice; expected one, with each of several values on a line of its "
            "own",
            "FILE:4: [connpool] is given twice; expected all keys of a section together",
        )

    def test_syntax(self) -> None:
        """
        Lines that are not a section, a key or a comment are errors.
        """
        self.assertProblems(
            "pool-size = 1\n[connpool]\njunk\nlisten = tcp:1\npool-size = 1\n 2\n",
            "FILE:1: 'pool-size = 1' is in no section: expected [connpool] or [pool:NAME] above it",
            "FILE:3: [connpool] 'junk': expected KEY = VALUE",
            "FILE:5: [connpool] pool-size = '1, 2': expected one line",
        )

    def test_values(self) -> None:
        """
        All wrong values are reported, each with its place.
        """
        self.assertProblems(
            "[connpool]\npool-size = 0\n[pool:a]\nupstream = localhost:1\n",
            "FILE:2: [connpool] pool-size = '0': expected a whole number from 1 to 65535",
            "FILE:4: [pool:a] upstream = 'localhost:1': Unknown endpoint type: 'localhost'; did you mean "
            "tcp:localhost:1?",
        )

    def test_wrongTexts(self) -> None:
        """
        The error for any wrong text of any option is one line in the words of the option, without those of Python.
        """
        for option in OPTIONS:
            for text in WRONG:
                try:
                    load(None, {option.name: [text]})
                except ConfigError as error:
                    problem = str(error)
                    self.assertNotIn("\n", problem)
                    self.assertNotRegex(
                        problem,
                        r"positional|literal|keyword|unexpected|__init__|list index|unpack|NoneType|Error\b|iterat|"
                        r"generator|null byte|base 10",
                        f"{option.name} {text!r}",
                    )
                    self.assertRegex(problem, "^command line: ", f"{option.name} {text!r}")
                    self.assertRegex(
                        problem, r"expected|did you mean|No such file|more than|there is no|needs|at the end|after the",
                        f"{option.name} {text!r}",
                    )  # fmt: skip

    def test_commandLine(self) -> None:
        """
        The place of a wrong option is the command line.
        """
        error = self.assertRaises(ConfigError, load, None, {"pool-size": ["x"], "min-pool-size": ["9"]})
        self.assertEqual(str(error), "command line: pool-size = 'x': expected a whole number from 1 to 65535")

    def test_rules(self) -> None:
        """
        The place of a contradiction is that of the setting most likely to be wrong. It may be another section, or the
        command line.
        """
        self.assertProblems(
            "[connpool]\nmin-pool-size = 3\n[pool:a]\nlisten = tcp:1\npool-size = 2\n[pool:b]\nlisten = tcp:1\n",
            "FILE:2: [connpool] min-pool-size 3 is more than pool-size 2",
        )
        self.assertProblems(
            "[connpool]\nmin-pool-size = 3\n",
            "FILE:2: [connpool] min-pool-size 3 is more than pool-size 2",
            given={"pool-size": ["2"]},
        )
        self.assertProblems(
            "[pool:a]\nlisten = tcp:1\n[pool:b]\nlisten = tcp:1\n",
            "FILE:4: [pool:b] pool 'a' listens on tcp:1 too; expected another address for each pool",
        )

    def test_rulesOfProcess(self) -> None:
        """
        The settings of the process can contradict each other too.
        """
        self.assertProblems(
            "[connpool]\nadmin = tcp:1\n",
            "FILE:2: [connpool] admin tcp:1 needs admin-password-file; only unix: may be without",
        )

    def test_ruleOfDefaults(self) -> None:
        """
        If a default is wrong, the place is the file and the pool.
        """
        self.assertProblems(
            "[pool:a]\n[pool:b]\n",
            "FILE: pool 'b': pool 'a' listens on tcp:11212:interface=127.0.0.1 too; expected another address for "
            "each pool",
        )

    def test_noFollowUp(self) -> None:
        """
        A wrong value is reported once: its default is not compared with other settings.
        """
        self.assertProblems(
            "[connpool]\npool-size = many\nmin-pool-size = 9\n",
            "FILE:2: [connpool] pool-size = 'many': expected a whole number from 1 to 65535",
        )

    def test_wrongItem(self) -> None:
        """
        A mistake in one of several values is reported with the line of this value, and only with this value.
        """
        problem = (
            "tcp:h:2 wieght=2': unknown word 'wieght=2': after the endpoint there may be weight=NUMBER and label=TEXT; "
            "a space in an endpoint has a backslash before it"
        )
        self.assertProblems(
            "[pool:a]\nupstream = tcp:h:1\n    # the second one\n    tcp:h:2 wieght=2\n\n    tcp:h:3\n",
            f"FILE:4: [pool:a] upstream = '{problem}",
        )
        self.assertProblems(
            "[pool:a]\nupstream =\n    tcp:h:1\n    tcp:h:2 wieght=2\n", f"FILE:4: [pool:a] upstream = '{problem}"
        )
        options = {"upstream": ["tcp:h:1", "tcp:h:2 wieght=2"]}
        self.assertProblems("[pool:a]\n", f"command line: upstream = '{problem}", given=options)

    def test_namedFiles(self) -> None:
        """
        A file that a setting names and that cannot be read is reported together with all other errors.
        """
        self.assertProblems(
            "[connpool]\npool-size = 0\nlisten-auth = file:/nonexistent/x\n[pool:a]\nmin-pool-size = 9\n"
            "upstream-auth = env:TXCONNPOOL_NONEXISTENT\nsession-unread-soft = 1g\nlisten = tcp:1\n"
            "  systemd:domain=INET:name=x\n",
            "FILE:3: [connpool] listen-auth = 'file:/nonexistent/x': /nonexistent/x cannot be read: "
            "No such file or directory",
            "FILE:2: [connpool] pool-size = '0': expected a whole number from 1 to 65535",
            "FILE:9: [pool:a] listen = 'systemd:domain=INET:name=x': "
            "systemd gave this process no such socket; see connpool.socket",
            "FILE:6: [pool:a] upstream-auth = 'env:TXCONNPOOL_NONEXISTENT': there is no environment variable "
            "TXCONNPOOL_NONEXISTENT",
            "FILE:7: [pool:a] session-unread-soft 1073741824 is more than session-unread-hard 67108864",
        )

    def test_unreadable(self) -> None:
        """
        A file that cannot be read is an error, with the reason.
        """
        error = self.assertRaises(ConfigError, load, "/nonexistent/connpool.ini")
        self.assertEqual(str(error), "/nonexistent/connpool.ini: cannot be read: No such file or directory")
        path = self.mktemp()
        Path(path).mkdir()
        self.assertEqual(str(self.assertRaises(ConfigError, load, path)), f"{path}: cannot be read: Is a directory")

    def test_noSection(self) -> None:
        """
        A file without a section is an error, because it may be just being written.
        """
        for text in ("", "\n# [connpool]\n; pool-size = 4\n"):
            self.assertProblems(text, "FILE: is empty: expected [connpool] or [pool:NAME]")

    def test_noText(self) -> None:
        """
        A file that is not UTF-8 text is an error, with the position.
        """
        path = self.mktemp()
        Path(path).write_bytes(b"[connpool]\n# \xff\n")
        error = self.assertRaises(ConfigError, load, path)
        self.assertEqual(str(error), f"{path}: is not UTF-8 text: invalid start byte at byte 13")

    @settings(deadline=None)
    @given(st.text(CHARACTERS) | st.text("[connpool:a]=\n \t;#-0"))
    def test_anyText(self, text: str) -> None:
        """
        Any text is settings or a list of problems, each of one line with its place.
        """
        try:
            self.load(text)
        except ConfigError as error:
            for fault in error.faults:
                self.assertTrue(str(fault).startswith(self.path), fault)
                self.assertNotIn("\n", str(fault))


class ShippedTests(SynchronousTestCase):
    """
    Tests for C{conf/connpool.ini}.
    """

    def test_asShipped(self) -> None:
        """
        The file as it is shipped gives the defaults.
        """
        self.assertEqual(load(str(CONF)), Settings())

    def test_everyKey(self) -> None:
        """
        The file has every key once, with its default.
        """
        shown = re.findall(r"^;([a-z-]+) =(.*)$", CONF.read_text("utf-8"), re.M)
        self.assertEqual(
            sorted((name, value.strip()) for name, value in shown),
            sorted((each.name, each.show(each.default)) for each in OPTIONS),
            "conf/connpool.ini explains each option, with a line `;NAME = DEFAULT`",
        )

    def test_uncommented(self) -> None:
        """
        With every key uncommented, the file still gives the defaults.
        """
        path = self.mktemp()
        Path(path).write_text(re.sub("^;", "", CONF.read_text("utf-8"), flags=re.M), "utf-8")
        self.assertEqual(load(path), Settings())

    def test_example(self) -> None:
        """
        The example of several pools in the file's comments works.
        """
        path = self.mktemp()
        example = re.search(r"^#     \[pool:.*", CONF.read_text("utf-8"), re.M | re.S)
        assert example is not None
        Path(path).write_text(re.sub("^# ?", "", example[0], flags=re.M), "utf-8")
        self.assertEqual([pool.name for pool in load(path).pools], ["sessions", "pages"])
