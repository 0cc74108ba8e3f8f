# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate} with real servers: keys are where twemproxy has put them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import SOURCE, Address, Memcached, Nutcracker, Proxy, Redis, missing
from txconnpool.migrate.document import Document
from txconnpool.migrate.endpoints import Offset
from txconnpool.migrate.twemproxy import convert, parseServer
from txconnpool.migrate.verify import Peer, RedisPeer, Refused, Trouble, makeKeys
from txconnpool.routing.distribution import Distribution

#: How many keys are compared for each configuration.
KEYS = 330


class Twemproxy(Nutcracker):
    """
    twemproxy with the servers and other settings of a pool as they are.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(upstream=[])
        self.lines = lines

    def configuration(self) -> str:
        """
        @return: the text of C{nutcracker.yml}.
        """
        return "".join(
            f"{line}\n"
            for line in ("pool:", f"  listen: {self._spell(self.address)}", *(f"  {each}" for each in self.lines))
        )

    def _configuration(self) -> str:
        return self.configuration()


def spelled(address: Address) -> str:
    """
    @return: an address as twemproxy and the command take it.
    """
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run C{python -m txconnpool.migrate}.
    """
    return subprocess.run(
        [sys.executable, "-m", "txconnpool.migrate", *arguments],
        cwd=SOURCE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


class TwemproxyTests(SynchronousTestCase):
    """
    Tests for configurations of twemproxy.
    """

    skip = missing("memcached", "nutcracker")

    def setUp(self) -> None:
        """
        Start servers, one of them on a UNIX socket.
        """
        self.memcacheds = [Memcached() for _ in range(4)]
        self.memcacheds.append(Memcached(address="m.sock"))
        for server in self.memcacheds:
            server.start()
            self.addCleanup(server.stop)

    def servers(self, weights: Sequence[int] = (1, 1, 1, 1, 1), names: Sequence[str] = ()) -> list[str]:
        """
        @return: the lines of the configuration for all servers.
        """
        named = [f" {name}" for name in names] or [""] * len(self.memcacheds)
        return [
            "servers:",
            *(
                f"  - {spelled(server.address)}:{weight}{name}"
                for server, weight, name in zip(self.memcacheds, weights, named, strict=True)
            ),
        ]

    def places(self, keys: Sequence[bytes], through: Address) -> list[int]:
        """
        Set keys through a proxy, and look for them in all servers.

        @return: for each key the number of its server.
        """
        proxy = Peer("OLD", through, 10)
        self.addCleanup(proxy.close)
        self.assertEqual(set(proxy.set([(key, b"v" + key) for key in keys])), {None})
        found = [-1] * len(keys)
        for number, server in enumerate(self.memcacheds):
            direct = Peer("server", server.address, 10)
            for at, value in enumerate(direct.get(keys)):
                if value is not None:
                    self.assertEqual((found[at], value), (-1, b"v" + keys[at]))
                    found[at] = number
            direct.close()
        return found

    def check(self, *lines: str) -> Distribution:
        """
        Compare the places of keys with those of the distribution that a configuration is converted to.
        """
        proxy = Twemproxy("timeout: 30000", *lines).start()
        self.addCleanup(proxy.stop)
        migration = convert(Document("n.yml", proxy.configuration()), Offset())
        (section,) = migration.sections
        entries = dict(line.split(" = ", 1) for line in section.lines() if " = " in line and line[0] not in "# ")
        distribution = Distribution(
            entries["distribution"], entries["hash"], hashTag=entries.get("hash-tag", "").encode()
        )
        start = next(at for at, line in enumerate(lines) if line == "servers:") + 1
        servers = distribution.build([parseServer(line.partition("- ")[2]) for line in lines[start:]])
        keys = [key for _, key in makeKeys(f"places{proxy.pid}n", KEYS)]
        self.assertEqual(self.places(keys, proxy.address), [servers.locate(key) for key in keys])
        return distribution

    def test_ketama(self) -> None:
        """
        Keys stay with ketama: with weights, names, and servers without either.
        """
        self.check(*self.servers())
        self.check("hash: murmur", *self.servers((1, 3, 2, 10, 1)))
        self.check("hash: md5", *self.servers((1, 1, 2, 5, 1), ("a", "server-2", "c:11211", "d", "e")))

    def test_modula(self) -> None:
        """
        Keys stay with modula, which sorts servers by the lengths of their names.
        """
        self.check("distribution: modula", "hash: crc32", *self.servers())
        self.check("distribution: modula", *self.servers((1, 3, 1, 2, 1), ("long-name", "b", "a", "cc", "bb")))

    def test_tags(self) -> None:
        """
        Keys stay with hash tags.
        """
        for tag in ('"{}"', '"$$"', '"[]"'):
            self.check(f"hash_tag: {tag}", "hash: one_at_a_time", *self.servers())

    def test_hashes(self) -> None:
        """
        Keys stay with every hash.
        """
        for name in ("crc16", "crc32a", "fnv1_64", "fnv1_32", "fnv1a_32", "hsieh", "jenkins"):
            self.check(f"hash: {name}", "distribution: modula", *self.servers())

    def test_verify(self) -> None:
        """
        The command finds that two proxies have the same map or not, and leaves no keys.
        """
        same = [Twemproxy("hash: md5", *self.servers()).start() for _ in range(2)]
        other = Twemproxy("hash: md5", 'hash_tag: "{}"', *self.servers()).start()
        for each in (*same, other):
            self.addCleanup(each.stop)
        addresses = [spelled(each.address) for each in (*same, other)]
        found = command("--verify", addresses[0], addresses[1], "440")
        self.assertEqual((found.returncode, found.stderr), (0, ""))
        self.assertIn("All 440 keys are on the same server for both.", found.stdout)
        found = command("--verify", addresses[0], addresses[2], "440")
        self.assertEqual((found.returncode, found.stderr), (1, ""))
        self.assertIn("Only keys with hash tags differ: compare hash-tag.", found.stdout)
        for server in self.memcacheds:
            self.assertEqual(server.stats()["curr_items"], "0")

    def migrate(self, *lines: str) -> tuple[Twemproxy, Proxy]:
        """
        Start twemproxy, convert its configuration, and start the proxy with the result.
        """
        old = Twemproxy("timeout: 30000", *lines).start()
        self.addCleanup(old.stop)
        yml, ini = (Path(self.mktemp()).absolute() for _ in range(2))
        yml.write_text(old.configuration())
        converted = command(str(yml))
        self.assertEqual(converted.returncode, 0, converted.stderr)
        ini.write_text(converted.stdout)
        # The option --listen replaces the address of the file, where twemproxy still listens.
        new = Proxy("--config", str(ini)).start()
        self.addCleanup(new.stop)
        return old, new

    def test_proxy(self) -> None:
        """
        After a migration all keys are on the same servers: with ketama and modula, weights, names, hash tags, servers
        on UNIX sockets.
        """
        names = ("long-name", "b", "a", "cc", "bb")
        for lines in (
            self.servers(),
            ["hash: murmur", 'hash_tag: "{}"', "auto_eject_hosts: true", *self.servers((1, 3, 2, 10, 1))],
            ["hash: md5", "preconnect: true", "server_connections: 2", *self.servers((1, 1, 2, 5, 1), names)],
            ["distribution: modula", "hash: crc32", 'hash_tag: "$$"', *self.servers((1, 3, 1, 2, 1), names)],
        ):
            old, new = self.migrate(*lines)
            found = command("--verify", spelled(old.address), spelled(new.address), "1100")
            self.assertEqual((found.returncode, found.stderr), (0, ""), found.stdout)
            self.assertIn("All 1100 keys are on the same server for both.", found.stdout)

    def test_different(self) -> None:
        """
        The command finds another hash between twemproxy and the proxy.
        """
        old = Twemproxy("hash: md5", *self.servers()).start()
        self.addCleanup(old.stop)
        _, new = self.migrate("hash: murmur", *self.servers())
        found = command("--verify", spelled(old.address), spelled(new.address), "110")
        self.assertEqual((found.returncode, found.stderr), (1, ""))
        self.assertRegex(found.stdout, r"[0-9]+ of 110 keys \([0-9.]+ %\) are on another server")

    def test_unix(self) -> None:
        """
        The command converts a file, and connects to UNIX sockets.
        """
        proxy = Twemproxy(*self.servers()).start()
        self.addCleanup(proxy.stop)
        path = Path(self.mktemp()).absolute()
        path.write_text(proxy.configuration())
        found = command(str(path))
        self.assertEqual(found.returncode, 0)
        self.assertIn("\ndistribution = twemproxy\n", found.stdout)
        self.assertIn(f"    unix:{self.memcacheds[4].address}\n", found.stdout)
        found = command("--verify", str(self.memcacheds[4].address), f"unix:{self.memcacheds[4].address}", "100")
        self.assertEqual((found.returncode, found.stderr), (0, ""))

    def test_down(self) -> None:
        """
        Keys of a server that is down are listed with the error.
        """
        proxy = Twemproxy(*self.servers()).start()
        self.addCleanup(proxy.stop)
        self.memcacheds[0].stop()
        found = command("--verify", spelled(proxy.address), spelled(proxy.address), "110")
        self.assertEqual((found.returncode, found.stderr), (2, ""))
        self.assertIn("SERVER_ERROR Connection refused", found.stdout)


class RedisTests(SynchronousTestCase):
    """
    Tests for configurations of twemproxy with C{redis: true}.
    """

    skip = missing("redis-server", "nutcracker")

    def start(self, *options: str) -> list[str]:
        """
        Start three servers.

        @return: the lines of the configuration for them, with weights and with a name.
        """
        self.redises = [Redis(*options).start() for _ in range(3)]
        for server in self.redises:
            self.addCleanup(server.stop)
        ends = ("1", "3", "2 third")
        servers = zip(self.redises, ends, strict=True)
        return ["servers:", *(f"  - {spelled(server.address)}:{end}" for server, end in servers)]

    def migrate(self, password: str | None, *lines: str) -> tuple[Twemproxy, Proxy]:
        """
        Start twemproxy, convert its configuration, and start the proxy with the result.
        """
        old = Twemproxy("redis: true", "timeout: 30000", *lines).start()
        self.addCleanup(old.stop)
        yml, ini, auth = (Path(self.mktemp()).absolute() for _ in range(3))
        yml.write_text(old.configuration())
        converted = command(str(yml))
        self.assertEqual(converted.returncode, 0, converted.stderr)
        if password is not None:
            auth.write_text(f"default:{password}")
        ini.write_text(converted.stdout.replace("/etc/connpool/pool.auth", str(auth)))
        new = Proxy("--config", str(ini)).start()
        self.addCleanup(new.stop)
        return old, new

    def test_verify(self) -> None:
        """
        After a migration all keys are on the same servers, for each distribution and with hash tags. No key is left.
        """
        servers = self.start()
        for lines in ([], ["hash: murmur", 'hash_tag: "{}"'], ["distribution: modula", "hash: crc32", "redis_db: 0"]):
            old, new = self.migrate(None, *lines, *servers)
            found = command("--verify", "--redis", spelled(old.address), spelled(new.address), "550")
            self.assertEqual((found.returncode, found.stderr), (0, ""), found.stdout)
            self.assertIn("All 550 keys are on the same server for both.", found.stdout)
        other, _ = self.migrate(None, "hash: md5", *servers)
        found = command("--verify", "--redis", spelled(other.address), spelled(new.address), "110")
        self.assertEqual((found.returncode, found.stderr), (1, ""), found.stdout)
        for server in self.redises:
            direct = RedisPeer("server", server.address, 10)
            self.addCleanup(direct.close)
            self.assertEqual(direct.command(b"DBSIZE"), b":0")

    def test_password(self) -> None:
        """
        Servers and clients have the password of C{redis_auth}.
        """
        old, new = self.migrate("secret", "redis_auth: secret", *self.start("--requirepass", "secret"))
        addresses = [spelled(old.address), spelled(new.address)]
        found = command("--verify", "--redis", *addresses, "110", REDISCLI_AUTH="secret")
        self.assertEqual((found.returncode, found.stderr), (0, ""), found.stdout)
        found = command("--verify", "--redis", *addresses, "110", REDISCLI_AUTH="other")
        self.assertEqual((found.returncode, found.stdout), (2, ""))
        self.assertRegex(found.stderr, r"^OLD 127\.0\.0\.1:[0-9]+: -ERR invalid password\n$")
        error = self.assertRaises(Trouble, RedisPeer, "NEW", new.address, 10, "other")
        self.assertIn("WRONGPASS", str(error))


class PeerTests(SynchronousTestCase):
    """
    Tests for the connections of the command, with a server that answers whatever it is told to.
    """

    def serve(self, reply: bytes, close: bool = True) -> Peer:
        """
        Answer whatever comes first, and perhaps close the connection.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(reply)
                if not close:
                    connection.recv(1)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 5)
        peer = Peer("OLD", listener.getsockname(), 0.3)
        self.addCleanup(peer.close)
        return peer

    def test_replies(self) -> None:
        """
        Replies are parsed; errors are those of one key.
        """
        peer = self.serve(b"VALUE a 0 3\r\n1\r\n\r\nEND\r\nEND\r\nSERVER_ERROR no \x1b\r\n")
        first, second, third = peer.get([b"a", b"b", b"c"])
        self.assertEqual((first, second), (b"1\r\n", None))
        self.assertIsInstance(third, Refused)
        self.assertEqual(str(third), "SERVER_ERROR no \\x1b")

    def test_wrong(self) -> None:
        """
        A reply to another request, the end of the connection, and silence are errors.
        """
        for reply, close, expected in (
            (b"VALUE b 0 1\r\n1\r\nEND\r\n", True, "a reply to get does not match the request"),
            (b"", True, "closed the connection"),
            (b"VALUE a 0 10\r\n1", True, "closed the connection instead of a reply"),
            (b"VALUE a", False, "no reply within 0.3 seconds"),
            (b"VALUE a 0 10\r\n1", False, "no reply within 0.3 seconds"),
        ):
            error = self.assertRaises(Trouble, self.serve(reply, close).get, [b"a"])
            self.assertRegex(str(error), rf"^OLD 127\.0\.0\.1:[0-9]+: {expected}")

    def test_refused(self) -> None:
        """
        If there is no server, the error says so.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
        error = self.assertRaises(Trouble, Peer, "NEW", address, 1)
        self.assertRegex(str(error), r"^NEW 127\.0\.0\.1:[0-9]+: cannot connect: Connection refused$")
