# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with real sentinels that have TLS and passwords.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS
from tests.real.resp import Client, ReplyError
from tests.real.servers import HOST, Proxy, Redis, Sentinel, freePort, missing, until
from tests.real.watched import Watched


class SecureSentinelTests(Watched, SynchronousTestCase):
    """
    A sentinel, a master and its replica, each with TLS on one port and without it on another one. The proxy knows only
    the first ones; the tests ask the others.
    """

    skip = missing("redis-server") or missingTLS

    def setUp(self) -> None:
        """
        Start them.
        """
        roots = Path(self.mktemp()).resolve()
        roots.mkdir()
        authority = Certificate(roots, "authority", authority=True)
        files = Path(self.mktemp()).resolve()
        files.mkdir()
        own = Certificate(files, HOST, authority)
        tls = {
            "tls-cert-file": own.certificate, "tls-key-file": own.key, "tls-ca-cert-file": authority.certificate,
            "tls-auth-clients": "no", "tls-replication": "yes",
        }  # fmt: skip
        options = [word for name, value in tls.items() for word in (f"--{name}", str(value))]
        options += ["--requirepass", "data", "--masterauth", "data", "--repl-diskless-sync-delay", "0"]
        ports = freePort(), freePort(), freePort()
        self.master = self.start(Redis("--tls-port", str(ports[0]), *options))
        self.replica = self.start(Redis("--tls-port", str(ports[1]), "--replicaof", f"{HOST} {ports[0]}", *options))
        self.ports = ports
        with self.client(self.replica, "data") as direct:
            until(lambda: b"master_link_status:up" in direct.ask("INFO", "replication"), what="replication")
        lines = [f"{name} {value}" for name, value in tls.items()]
        lines += [f"tls-port {ports[2]}", "requirepass watch", "sentinel auth-pass cache data"]
        self.sentinel = self.start(Sentinel("cache", (HOST, ports[0]), *lines))
        with self.client(self.sentinel, "watch") as direct:
            until(lambda: direct.ask("SENTINEL", "REPLICAS", "cache"), what="the replica at the sentinel")
        secrets = {name: files / name for name in ("data", "watch")}
        for name, path in secrets.items():
            path.touch(0o600)
            path.write_text(f"default:{name}\n")
        self.proxy = self.start(
            Proxy(
                *("--protocol", "redis", "--connect-timeout", "10", "--wait-timeout", "8", "--request-timeout", "8"),
                *("--upstream-auth", f"file:{secrets['data']}"),
                *("--sentinel-auth", f"file:{secrets['watch']}"),
                upstream=[f"sentinel:cache@{HOST}:{ports[2]} trustRoots={roots}"],
            )
        )

    def client(self, server: Any, password: str) -> Client:
        """
        @return: a client of a server, without TLS, that has logged in.
        """
        client = Client(server.address)
        client.ask("AUTH", password)
        return client

    def test_failover(self) -> None:
        """
        The proxy finds the master, and its successor, at the ports for TLS.
        """
        with Client(self.proxy.address, 30.0) as client:
            until(lambda: self.writes(client, "first"), what="the master")
            with self.client(self.master, "data") as direct:
                self.assertEqual(direct.ask("GET", "k"), b"first")
            with self.client(self.sentinel, "watch") as direct:
                direct.ask("SENTINEL", "SET", "cache", "down-after-milliseconds", 500)
            self.master.kill()
            until(lambda: self.writes(client, "second"), what="the new master")
        with self.client(self.replica, "data") as direct:
            self.assertEqual(direct.ask("GET", "k"), b"second")
        for port in self.ports[:2]:
            self.assertIn(f"tls:{HOST}:{port}", self.proxy.log)

    def writes(self, client: Client, value: str) -> bool:
        """
        @return: whether a client can write.
        """
        try:
            return bool(client.ask("SET", "k", value) == b"OK")
        except ReplyError:
            return False
