# -*- test-case-name: tests.config.test_files -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.files}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.files import checkFiles, fingerprints
from txconnpool.config.settings import ConfigError, PoolSettings, Settings


class CheckFilesTests(SynchronousTestCase):
    """
    Tests for L{checkFiles}.
    """

    def test_notRead(self) -> None:
        """
        Settings are constructed without reading files. C{checkFiles} reports a fault for each setting that names a file
        which cannot be used.
        """
        a = PoolSettings(name="a", listenAuth="file:/nonexistent/users", upstreamAuth="env:TXCONNPOOL_NONEXISTENT")
        b = PoolSettings(
            name="b", listen=("tcp:1", "systemd:domain=INET:index=0"), upstream=("tls:h:1:trustRoots=/nonexistent/x",)
        )
        settings = Settings(pools=(a, b), adminPasswordFile="/nonexistent/password")
        faults = self.assertRaises(ConfigError, checkFiles, settings).faults
        self.assertEqual(
            [(fault.pool, fault.attributes) for fault in faults],
            [
                ("", ("adminPasswordFile",)),
                ("a", ("upstreamAuth",)),
                ("a", ("listenAuth",)),
                ("b", ("upstream",)),
                ("b", ("listen",)),
            ],
        )
        texts = [str(fault) for fault in faults]
        self.assertEqual(
            texts[1],
            "pool 'a': upstreamAuth = 'env:TXCONNPOOL_NONEXISTENT': there is no environment variable "
            "TXCONNPOOL_NONEXISTENT",
        )
        self.assertIn("'systemd:domain=INET:index=0': systemd gave this process no such socket", texts[4])

    def test_right(self) -> None:
        """
        There are no faults if all files are right, or the settings name none.
        """
        users = Path(self.mktemp())
        users.write_text("joe:secret", "ascii")
        for pool in (PoolSettings(), PoolSettings(listenAuth=f"file:{users}")):
            checkFiles(Settings(pools=(pool,)))


class FingerprintsTests(SynchronousTestCase):
    """
    Tests for L{fingerprints}.
    """

    def test_changed(self) -> None:
        """
        The fingerprint of a file changes with its content, and does not show it. Files that cannot be read have none.
        """
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        users, key = directory / "users", directory / "key"
        trusted = directory / "trusted"
        trusted.mkdir()
        users.write_text("joe:secret", "ascii")
        pool = PoolSettings(
            name="a",
            listen=(f"ssl:1:privateKey={key}", "tcp:2"),
            upstream=(f"tls:h:1:trustRoots={trusted}:timeout=3",),
            listenAuth=f"file:{users}",
            upstreamAuth=f"file:{users}",
        )
        settings = Settings(pools=(pool,))
        first = dict(fingerprints(settings))
        self.assertEqual(
            sorted(first),
            [
                "pool a: keys and certificates of tls:h:1",
                "pool a: user and password of upstream-auth",
                "pool a: users and passwords of listen-auth",
            ],
        )
        self.assertNotIn(b"secret", b"".join(first.values()))
        self.assertEqual(dict(fingerprints(settings)), first)
        (trusted / "one.pem").write_text("one", "ascii")
        users.write_text("joe:other", "ascii")
        key.write_text("key", "ascii")
        second = dict(fingerprints(settings))
        self.assertEqual(len(second), 4)
        self.assertEqual([name for name in first if first[name] == second[name]], [])
