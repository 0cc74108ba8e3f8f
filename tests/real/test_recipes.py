# -*- test-case-name: tests.real.test_recipes -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for logins, TLS and computed values of L{MemCachePool} with a real memcached.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.servers import HOST, PATIENT, Memcached, missing
from tests.real.test_memcache import pause
from tests.real.test_tls import missingMemcachedTLS
from txconnpool.errors import ServerUnavailable
from txconnpool.memcache import JSONSerializer, MemCachePool, ZlibCompressor


class MoreTests(TestCase):
    """
    Base class of these tests.
    """

    skip = missing("memcached")

    def server(self, *options: str) -> Memcached:
        """
        Start a memcached.
        """
        server = Memcached(*options).start()
        self.addCleanup(server.stop)
        return server

    def pool(self, server: Any, **settings: Any) -> Any:
        """
        Make a pool, which is closed at the end of the test.
        """
        pool = MemCachePool(server.endpoint if isinstance(server, Memcached) else server, **{**PATIENT, **settings})
        self.addCleanup(pool.close)
        return pool


class ComputeTests(MoreTests):
    """
    Tests for calls that use meta commands.
    """

    async def test_compute(self) -> None:
        """
        Of two clients one computes, the other one waits; the flags of the hooks are stored.
        """
        server = self.server()
        pools = [
            self.pool(server, namespace="n:", serializer=JSONSerializer(), compressor=ZlibCompressor(least=10))
            for _ in range(2)
        ]
        computed: list[Any] = []

        async def compute() -> list[int]:
            computed.append(None)
            await pause(0.1)
            return [1] * 100

        for expected in (1, 1):
            calls = [Deferred.fromCoroutine(self.ask(pool, compute)) for pool in pools for _ in range(3)]
            self.assertEqual(await gatherResults(calls), [[1] * 100] * 6)
            self.assertEqual(len(computed), expected)
        self.assertEqual(await pools[0].get("k"), (3, [1] * 100))
        self.assertTrue(await pools[0].invalidate("k"))
        calls = [Deferred.fromCoroutine(self.ask(pool, compute)) for pool in pools]
        self.assertEqual(await gatherResults(calls), [[1] * 100] * 2)
        self.assertEqual(len(computed), 2)

    async def ask(self, pool: Any, compute: Any) -> Any:
        return await pool.getOrCompute("k", compute, 60, refreshBefore=10)

    async def test_counters(self) -> None:
        """
        Counters begin with their initial number.
        """
        pool = self.pool(self.server())
        self.assertEqual([await pool.increment("n", 2, initial=5) for _ in range(2)], [5, 7])
        self.assertEqual([await pool.decrement("m", 2, initial=3) for _ in range(3)], [3, 1, 0])

    async def test_several(self) -> None:
        """
        Many keys are stored, iterated over and deleted.
        """
        pool = self.pool(self.server())
        values = {f"key{number}": b"%d" % number for number in range(500)}
        self.assertEqual(set((await pool.setMultiple(values)).values()), {True})
        found = {key: value async for key, (_, value) in pool.getMultiple(values)}
        self.assertEqual(found, values)
        self.assertEqual(set((await pool.deleteMultiple(values)).values()), {True})
        self.assertEqual(await pool.update("key1", lambda old: b"new"), b"new")


class LoginTests(MoreTests):
    """
    Tests for C{login}.
    """

    async def test_login(self) -> None:
        """
        The pool logs in to a server that requires it. A wrong or missing login makes the server unavailable, and the
        error names the parameter.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name)
        path.chmod(0o755)
        users = path / "users"
        users.write_text("joe:secret\n", "utf-8")
        users.chmod(0o644)
        server = self.server("-Y", str(users))
        pool = self.pool(server, login=("joe", "secret"), namespace="joe:")
        self.assertTrue(await pool.set("k", b"v"))
        self.assertEqual(await pool.get("k"), (0, b"v"))
        for login, text in (
            (None, "authentication failure: the server asks for a password, and login is not set"),
            (("joe", "wrong"), "authentication failure"),
        ):
            error = await self.assertFailure(self.pool(server, login=login).get("k"), ServerUnavailable)
            self.assertIn(text, str(error))
            self.assertNotIn("wrong", str(error))


class TLSTests(MoreTests):
    """
    Tests for C{tls:} endpoints.
    """

    skip = missingTLS or missingMemcachedTLS()

    async def test_serves(self) -> None:
        """
        The pool connects with TLS to a server whose certificate it trusts, and to no other one.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name)
        path.chmod(0o755)
        authority = Certificate(path, "authority", authority=True)
        host = Certificate(path, HOST, authority)
        host.key.chmod(0o644)  # memcached runs as another user
        trusted, other = path / "trusted", path / "other"
        for folder, signer in ((trusted, authority), (other, Certificate(path, "stranger", authority=True))):
            folder.mkdir()
            (folder / signer.certificate.name).write_bytes(signer.certificate.read_bytes())
        server = self.server("-Z", "-o", f"ssl_chain_cert={host.certificate},ssl_key={host.key}")
        assert isinstance(server.address, tuple)
        address = f"tls:{HOST}:{server.address[1]}:trustRoots="
        pool = self.pool(address + quoted(trusted))
        self.assertTrue(await pool.set("k", b"v" * 100_000))
        self.assertEqual(await pool.get("k"), (0, b"v" * 100_000))
        await self.assertFailure(self.pool(address + quoted(other)).get("k"), ServerUnavailable)
