# -*- test-case-name: tests.config.test_credentials -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.credentials}.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.credentials import Accounts, SecretFile, readLogins
from txconnpool.config.ini import load
from txconnpool.config.settings import ConfigError, PoolSettings

NAME = "TXCONNPOOL_TEST_LOGIN"


class SourceTestCase(SynchronousTestCase):
    """
    A base class for tests that read users and passwords.
    """

    def file(self, content: bytes) -> str:
        """
        @return: a source: a new file with some content.
        """
        self.path = Path(self.mktemp())
        self.path.write_bytes(content)
        return f"file:{self.path}"

    def environment(self, content: str) -> str:
        """
        @return: a source: an environment variable with some content.
        """
        self.addCleanup(os.environ.pop, NAME)
        os.environ[NAME] = content
        return f"env:{NAME}"


class ReadLoginsTests(SourceTestCase):
    """
    Tests for L{readLogins}.
    """

    def test_read(self) -> None:
        """
        A file or an environment variable has a user and a password in each line; only the first colon divides them.
        """
        content = b"joe:secret\n\r\nann:a:b\r\n\xc3\xa9:\xff"
        found = ((b"joe", b"secret"), (b"ann", b"a:b"), (b"\xc3\xa9", b"\xff"))
        self.assertEqual(readLogins(self.file(content)), found)
        self.assertEqual(readLogins(self.environment(os.fsdecode(content))), found)

    def test_malformed(self) -> None:
        """
        A wrong line is reported by its number, and its content is not shown.
        """
        for line in (
            b"hidden",
            b":hidden",
            b"hidden:",
            b"hid den:x",
            b"joe:hid den",
            b"joe:hid\0den",
            b"j:" + b"x" * 2050,
        ):
            source = self.file(b"ann:b\n" + line + b"\n")
            error = self.assertRaises(ValueError, readLogins, source)
            self.assertEqual(str(error), f"line 2 of {self.path}: expected user:password, without spaces", line)

    def test_nothing(self) -> None:
        """
        An empty or missing source is reported.
        """
        for source, text in (
            (self.file(b"\n\n"), f"{self.path} is empty: expected user:password"),
            ("file:/nonexistent/x", "/nonexistent/x cannot be read: No such file or directory"),
            (f"env:{NAME}", f"there is no environment variable {NAME}"),
        ):
            self.assertEqual(str(self.assertRaises(ValueError, readLogins, source)), text)

    def test_noSource(self) -> None:
        """
        A source of any other form is not shown, because it may be the password itself.
        """
        for source in ("joe:secret", "secret", "file:", "env:", "", "FILE:x"):
            error = self.assertRaises(ValueError, readLogins, source)
            self.assertEqual(str(error), "expected file:PATH or env:NAME, in there user:password")


class AccountsTests(SourceTestCase):
    """
    Tests for L{Accounts}, and for the settings that are of its kind.
    """

    def test_number(self) -> None:
        """
        The number of users may be limited.
        """
        one, two = self.file(b"joe:secret\n"), self.environment("joe:secret\nann:x")
        Accounts(1).checkFiles(one)
        for source in (one, two):
            Accounts().checkFiles(source)
        self.assertRaises(ValueError, Accounts(1).checkFiles, "file:/nonexistent")
        error = self.assertRaises(ValueError, Accounts(1).checkFiles, two)
        self.assertEqual(str(error), "2 users: expected 1")

    def test_unread(self) -> None:
        """
        C{checkValue} checks only the form of the value, and reads nothing.
        """
        for source in ("file:/nonexistent", "env:x"):
            Accounts().checkValue(source)
        for value in ("joe:secret", "file:", "env:", "", "FILE:x", None):
            error = self.assertRaises(ValueError, Accounts().checkValue, value)
            self.assertEqual(str(error), "expected file:PATH or env:NAME, in there user:password")

    def test_absolute(self) -> None:
        """
        The path of a file is made absolute.
        """
        self.assertEqual(Accounts().located("file:x/y", "/etc"), "file:/etc/x/y")
        self.assertEqual(Accounts().located("file:/x/y", "/etc"), "file:/x/y")
        self.assertEqual(Accounts().located("env:x/y", "/etc"), "env:x/y")

    def test_settings(self) -> None:
        """
        Settings contain the sources, not the users and passwords.
        """
        # Words that are not in the path of the file either.
        one, two = self.file(b"joe:Secret!1\n"), self.environment("ann:Secret!2\nbob:Secret!3")
        settings = load(None, {"upstream-auth": [one], "listen-auth": [two]})
        (pool,) = settings.pools
        self.assertEqual((pool.upstreamAuth, pool.listenAuth), (f"file:{self.path.absolute()}", two))
        self.assertNotIn("Secret!", repr(settings))

    def test_passwordInstead(self) -> None:
        """
        If the value is the password itself, the error says what is expected and does not show the password.
        """
        text = "'...': expected file:PATH or env:NAME, in there user:password"
        error = self.assertRaises(ConfigError, load, None, {"upstream-auth": ["joe:secret"]})
        self.assertEqual(str(error), f"command line: upstream-auth = {text}")
        error = self.assertRaises(ConfigError, PoolSettings, upstreamAuth="joe:secret")
        self.assertEqual(str(error), f"pool 'default': upstreamAuth = {text}")
        ini = self.mktemp()
        Path(ini).write_text("[connpool]\nlisten-auth = joe:secret\n  ann:secret\n", "utf-8")
        error = self.assertRaises(ConfigError, load, ini)
        self.assertEqual(str(error), f"{ini}:2: [connpool] listen-auth = '...': expected one line")

    def test_wrongPlace(self) -> None:
        """
        The error for a source that cannot be read shows the source, which is not confidential.
        """
        error = self.assertRaises(ConfigError, load, None, {"listen-auth": ["file:/nonexistent/x"]})
        self.assertEqual(
            str(error),
            "command line: listen-auth = 'file:/nonexistent/x': /nonexistent/x cannot be read: "
            "No such file or directory",
        )


class SecretFileTests(SourceTestCase):
    """
    Tests for L{SecretFile}.
    """

    def assertRefused(self, path: str) -> None:
        """
        Assert that a file has no secret.
        """
        error = self.assertRaises(ValueError, SecretFile().checkFiles, path)
        self.assertEqual(str(error), "expected a file that can be read, with the secret in its first line")

    def test_secret(self) -> None:
        """
        The secret is the first line of the file, without spaces around it.
        """
        path = self.mktemp()
        self.assertRefused(path)
        for content in (b" \nsecret", b""):
            Path(path).write_bytes(content)
            self.assertRefused(path)
        Path(path).write_bytes(b" open sesame \r\nnot this\n")
        SecretFile().checkFiles(path)
        self.assertEqual(SecretFile.read(path), b"open sesame")

    def test_path(self) -> None:
        """
        The path is made absolute. C{checkValue} accepts any path.
        """
        self.assertEqual(SecretFile().located("x/y", "/etc"), "/etc/x/y")
        SecretFile().checkValue("/nonexistent")
        for value in ("", None):
            self.assertRaises(ValueError, SecretFile().checkValue, value)
