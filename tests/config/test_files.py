# -*- test-case-name: tests.config.test_files -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.files}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.files import checkFiles, exposedSecrets, fingerprints
from txconnpool.config.settings import ConfigError, PoolSettings, Settings
from txconnpool.config.warnings import warningsOf


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


class ExposedSecretsTests(SynchronousTestCase):
    """
    Tests for L{exposedSecrets}, and for what C{strict-permissions} does with its faults.
    """

    def setUp(self) -> None:
        """
        Make a file for each kind of secret.
        """
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.users, self.admin, self.key = directory / "users", directory / "admin", directory / "key.pem"
        for path in (self.users, self.admin, self.key):
            path.write_text("joe:secret", "ascii")

    def settings(self, strict: str = "no") -> Settings:
        """
        @return: settings with these files.
        """
        pool = PoolSettings(
            name="a",
            listen=(f"ssl:1:privateKey={self.key}", f"ssl:2:privateKey={self.key}:interface=127.0.0.1"),
            listenAuth=f"file:{self.users}",
            upstreamAuth="env:PATH",
        )
        return Settings(pools=(pool,), adminPasswordFile=str(self.admin), strictPermissions=strict)

    def found(self, users: int, admin: int, key: int) -> list[str]:
        """
        @param users: the permissions of the file with users, and so on.

        @return: the faults.
        """
        self.users.chmod(users)
        self.admin.chmod(admin)
        self.key.chmod(key)
        return [str(fault) for fault in exposedSecrets(self.settings())]

    def test_private(self) -> None:
        """
        Passwords that only the owner can read are no fault, nor is a private key that a group can read.
        """
        self.assertEqual(self.found(0o600, 0o400, 0o640), [])

    def test_exposed(self) -> None:
        """
        The fault names the file, its mode and the command that mends it.
        """
        self.assertEqual(
            self.found(0o640, 0o604, 0o644),
            [
                f"adminPasswordFile: {self.admin} is open to other users (mode 604); expected `chmod 600`",
                f"pool 'a': listenAuth: {self.users} is open to its group (mode 640); expected `chmod 600`",
                f"pool 'a': listen: {self.key} is open to other users (mode 644); expected `chmod 640`",
            ],
        )
        self.assertEqual(len(self.found(0o620, 0o602, 0o642)), 3)

    def test_absent(self) -> None:
        """
        A file that does not exist is not a fault of this kind.
        """
        self.users.unlink()
        self.assertEqual([fault.attributes for fault in exposedSecrets(self.settings())], [
            ("adminPasswordFile",), ("listen",)
        ])  # fmt: skip

    def test_strict(self) -> None:
        """
        They are warnings, or errors if the settings say so.
        """
        users = f"file:{self.users}"
        for strict in "no", "yes":
            settings = Settings(pools=(PoolSettings(listenAuth=users),), strictPermissions=strict)
            self.users.chmod(0o600)
            checkFiles(settings)
            self.assertEqual(warningsOf(settings), [])
            self.users.chmod(0o644)
            self.assertEqual(len(warningsOf(settings)), 1)
            if strict == "yes":
                error = self.assertRaises(ConfigError, checkFiles, settings)
                self.assertEqual([str(fault) for fault in error.faults], warningsOf(settings))
            else:
                checkFiles(settings)


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
