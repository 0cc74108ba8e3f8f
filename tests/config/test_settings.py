# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.settings}.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.config.settings import OPTIONS, POOL_OPTIONS, PROCESS_OPTIONS, ConfigError, PoolSettings, Settings
from txconnpool.routing.distribution import Distribution
from txconnpool.routing.servers import Server


class PoolSettingsTests(SynchronousTestCase):
    """
    Tests for L{PoolSettings}.
    """

    def assertFaults(self, words: list[str], **values: Any) -> None:
        """
        Assert that the settings of a pool are refused with lines that contain these words.
        """
        lines = str(self.assertRaises(ConfigError, PoolSettings, **values)).splitlines()
        self.assertEqual(len(lines), len(words), lines)
        for line, expected in zip(lines, words, strict=True):
            self.assertIn(expected, line)
            self.assertTrue(line.startswith(f"pool {values.get('name', 'default')!r}: "), line)

    def test_defaults(self) -> None:
        """
        The defaults are those of the documentation.
        """
        documented: dict[str, Any] = {
            "name": "default",
            "found": (),
            "upstream": ("tcp:127.0.0.1:11211",),
            "listen": ("tcp:11212:interface=127.0.0.1",),
            "protocol": "memcache",
            "leaseAt": "connect",
            "reset": "close",
            "upstreamAuth": None,
            "sentinelAuth": None,
            "listenAuth": None,
            "auth": "check",
            "allowCommands": None,
            "denyCommands": (),
            "announce": None,
            "distribution": None,
            "hash": None,
            "hashTag": None,
            "hashStop": None,
            "hashSkip": None,
            "readFrom": "primary",
            "onFailure": "fail",
            "failover": None,
            "failoverExpire": 60.0,
            "ejectAfter": 2,
            "minLiveServers": 0,
            "partialGets": "misses",
            "discoverInterval": 30.0,
            "poolSize": 4,
            "database": 0,
            "maxPinned": 100,
            "minPoolSize": 1,
            "pipelineDepth": 1024,
            "idleTimeout": 600.0,
            "maxLifetime": 3600.0,
            "keepAlive": 0.0,
            "connectTimeout": 1.0,
            "waitTimeout": 1.0,
            "requestTimeout": 2.0,
            "replyTimeout": 60.0,
            "loginTimeout": 10.0,
            "clientIdleTimeout": 0.0,
            "slowRequest": 0.0,
            "logKeys": "yes",
            "maxClients": 10000,
            "maxClientsPerAddress": 0,
            "statsAddresses": "no",
            "keyDumps": "yes",
            "maxWaiting": 10000,
            "maxItemSize": 1048576,
            "maxInFlight": 256,
            "sessionBacklog": 65536,
            "sessionUnreadSoft": 262144,
            "sessionUnreadHard": 67108864,
        }
        real = dataclasses.asdict(PoolSettings())
        wrong = {
            name: (documented.get(name, "not here"), real.get(name, "no setting"))
            for name in documented | real
            if name not in documented or name not in real or documented[name] != real[name]
        }
        self.assertEqual(wrong, {}, "if these defaults are meant, write them here and run `python -m tests.documents`")

    def test_frozen(self) -> None:
        """
        Settings are immutable.
        """
        settings = PoolSettings()
        self.assertRaises(dataclasses.FrozenInstanceError, setattr, settings, "poolSize", 5)
        self.assertEqual(hash(settings), hash(PoolSettings()))

    def test_commands(self) -> None:
        """
        Commands are those of memcached. Commands that are never forwarded cannot be allowed.
        """
        PoolSettings(allowCommands=("get", "mg"), denyCommands=("flush_all", "mg"))
        self.assertFaults(
            ["watch is about a server or a connection", "no such command: flushall; did you mean flush_all?"],
            allowCommands=("get", "watch"),
            denyCommands=("flushall",),
        )

    def test_eachValue(self) -> None:
        """
        All values are checked, and all wrong ones are reported.
        """
        self.assertFaults(
            ["upstream = ('smtp:x',)", "poolSize = 0: expected a whole number", "requestTimeout = '2'"],
            poolSize=0,
            requestTimeout="2",
            upstream=("smtp:x",),
        )

    def test_name(self) -> None:
        """
        A pool's name is one word, for logs, statistics and commands.
        """
        for name in ("", "two words", "a\nb", "a]"):
            self.assertFaults(["expected a name of letters, digits"], name=name)
        PoolSettings(name="A-1_b.c")

    def test_pools(self) -> None:
        """
        The number of connections that are kept open is not larger than their maximum number.
        """
        PoolSettings(minPoolSize=4)
        self.assertFaults(["min-pool-size 5 is more than pool-size 4"], minPoolSize=5)

    def test_servers(self) -> None:
        """
        The lines of upstream are read once.
        """
        settings = PoolSettings(upstream=("tcp:a:1 weight=2", "tls:b:1:trustRoots=/x"))
        self.assertEqual(settings.servers, (Server("tcp:a:1", 2.0), Server("tls:b:1:trustRoots=/x")))
        self.assertIs(settings.servers, settings.servers)
        self.assertEqual(dataclasses.replace(settings, upstream=("tcp:c:1",)).servers, (Server("tcp:c:1"),))

    def test_sameServer(self) -> None:
        """
        A server is listed only once, even with other words or with arguments that are not part of its address.
        """
        upstream = ("tcp:a:1", "tcp:b:1", "tcp:a:1 weight=2", "tcp:b:1:timeout=3")
        self.assertFaults(["upstream has tcp:a:1 2 times", "upstream has tcp:b:1 2 times"], upstream=upstream)

    def test_announced(self) -> None:
        """
        What clients of a cluster see. C{--announce} is for Redis.
        """
        for value, expected in (
            (None, None),
            (("no",), None),
            (("self",), ()),
            (("10.0.0.1:6379", "[::1]:7", "redis-1.example.com:1"),
             (("10.0.0.1", 6379), ("::1", 7), ("redis-1.example.com", 1))),
        ):  # fmt: skip
            self.assertEqual(PoolSettings(protocol="redis", announce=value).announced, expected)
        self.assertFaults(
            ["announce is for clients of a cluster, which protocol memcache does not have"], announce=("self",)
        )
        self.assertIs(PoolSettings(announce=("no",)).announced, None)

    def test_database(self) -> None:
        """
        Only servers of Redis have databases.
        """
        self.assertEqual(PoolSettings(protocol="redis", database=15).database, 15)
        for protocol in ("memcache", "raw"):
            self.assertFaults(
                [f"database is for protocol redis, and protocol is {protocol}; expected 0"],
                protocol=protocol,
                database=1,
            )

    def test_distribution(self) -> None:
        """
        Keys are distributed among several servers that are not equal.
        """
        servers = ("tcp:a:1", "tcp:b:1")
        self.assertIs(PoolSettings().distributionByKey, None)
        self.assertIs(PoolSettings(distribution="twemproxy").distributionByKey, None)
        self.assertIs(PoolSettings(upstream=servers, distribution="round-robin").distributionByKey, None)
        settings = PoolSettings(upstream=servers)
        self.assertEqual(settings.distributionByKey, Distribution("ketama"))
        self.assertIs(settings.distributionByKey, settings.distributionByKey)
        self.assertEqual(
            PoolSettings(upstream=servers, distribution="twemproxy").distributionByKey, Distribution("twemproxy")
        )
        self.assertFaults(["distribution = 'modula': expected ketama or twemproxy or"], distribution="modula")

    def test_hash(self) -> None:
        """
        The settings of hashing are those of the distribution.
        """
        settings = PoolSettings(
            upstream=("tcp:a:1", "tcp:b:1"),
            distribution="twemproxy",
            hash="murmur",
            hashTag="{}",
            hashStop="|#|",
            hashSkip="app:",
        )
        self.assertEqual(
            settings.distributionByKey,
            Distribution("twemproxy", "murmur", hashTag=b"{}", hashStop=b"|#|", hashSkip=b"app:"),
        )
        settings = PoolSettings(upstream=("tcp:a:1", "tcp:b:1"), distribution="mcrouter", hash="crc32")
        self.assertEqual(settings.distributionByKey, Distribution("mcrouter", "crc32", hashStop=b"|#|"))

    def test_wrongHash(self) -> None:
        """
        A hash that the distribution does not have is refused, also while the pool has one server.
        """
        self.assertFaults(["wrong hash 'murmur3' for the distribution twemproxy: must be one of: one_at_a_time, "],
                          distribution="twemproxy", hash="murmur3")  # fmt: skip
        self.assertFaults(["the distribution round-robin hashes no keys"], distribution="round-robin", hashSkip="a")
        self.assertFaults(
            ["hash = 'sha1': expected ", "hashTag = '{': expected two", "hashStop = 'a b': expected a text without"],
            hash="sha1",
            hashTag="{",
            hashStop="a b",
        )

    def test_impossible(self) -> None:
        """
        Weights and labels that the distribution cannot have are refused.
        """
        for distribution, upstream, text in (
            ("pymemcache", ("tcp:a:1 weight=2", "tcp:b:1"), "wrong weight 2 of a:1: with the distribution pymemcache"),
            ("mcrouter", ("tcp:a:1 weight=2", "tcp:b:1"), "wrong weight 2 of a:1: with the distribution mcrouter"),
            ("ketama", ("tcp:a:1 weight=0.5", "tcp:b:1"), "wrong weight 0.5 of a:1"),
            ("ketama", ("tcp:a:1", "tcp:b:1 label=a:1"), "2 servers have the label 'a:1'"),
            ("round-robin", ("tcp:a:1", "tcp:b:1 weight=2"), "tcp:b:1 has a weight; the distribution round-robin"),
        ):
            self.assertFaults([text], upstream=upstream, distribution=distribution)
            PoolSettings(upstream=upstream[:1], distribution=distribution)

    def test_memory(self) -> None:
        """
        A server without host and port has a label too.
        """
        settings = PoolSettings(upstream=("memory:name=a", "memory:name=b"))
        assert settings.distributionByKey is not None
        self.assertEqual(
            settings.distributionByKey.labels([server.spec() for server in settings.servers]),
            ["memory:name=a", "memory:name=b"],
        )

    def test_sources(self) -> None:
        """
        A line of C{upstream} may stand for servers that are looked up. Those that were found stand in its place. Keys
        are distributed in any case, because there may be more servers later.
        """
        lines = ("tcp:a:1", "dns:b:1", "srv:c")
        settings = PoolSettings(upstream=lines)
        self.assertEqual((settings.sources, settings.servers), (lines[1:], (Server("tcp:a:1"),)))
        assert settings.distributionByKey is not None
        found = (("srv:c", "tcp:d:1 weight=2"), ("dns:b:1", "tcp:e:1 label=x"), ("dns:b:1", "tcp:a:1"),
                 ("srv:c", "tcp:e:1"), ("dns:gone:1", "tcp:f:1"))  # fmt: skip
        settings = dataclasses.replace(settings, found=found)
        self.assertEqual([str(each) for each in settings.servers], ["tcp:a:1", "tcp:e:1 label=x", "tcp:d:1 weight=2"])
        self.assertIsNone(PoolSettings(upstream=lines, distribution="round-robin").distributionByKey)

    def test_sizeOfFound(self) -> None:
        """
        The default of C{pool-size} grows with the servers that are found. Another C{pool-size} stays.
        """
        found = tuple(("dns:b:1", f"tcp:10.0.0.{number}:1") for number in range(9))
        settings = PoolSettings(upstream=("dns:b:1",))
        self.assertEqual(settings.poolSize, 4)
        self.assertEqual(dataclasses.replace(settings, found=found).poolSize, 9)
        self.assertEqual(PoolSettings(upstream=("dns:b:1",), poolSize=5, found=found).poolSize, 5)

    def test_wrongSources(self) -> None:
        """
        A source is checked, and so are the servers that it has.
        """
        self.assertFaults(["upstream = ('dns:b',): expected dns:HOST:PORT"], upstream=("dns:b",))
        for line in ("tcp:a:1 label=x", "tcp:a:1 weight=2"):
            self.assertFaults(
                ["weight" if "weight" in line else "label"],
                upstream=("dns:b:1",),
                distribution="pymemcache" if "weight" in line else "ketama",
                found=(("dns:b:1", line), ("dns:b:1", "tcp:b:1 label=x")),
            )

    def test_minLive(self) -> None:
        """
        By default half of the servers keep their keys in any case.
        """
        self.assertEqual([PoolSettings().minLive(count) for count in range(1, 6)], [1, 1, 2, 2, 3])
        settings = PoolSettings(minLiveServers=3)
        self.assertEqual([settings.minLive(count) for count in (1, 2, 3, 4)], [1, 2, 3, 3])

    def test_tooManyLive(self) -> None:
        """
        No more servers are left than there are.
        """
        servers = ("tcp:a:1", "tcp:b:1")
        self.assertFaults(
            ["min-live-servers 3 is more than the 2 servers in upstream"],
            upstream=servers,
            onFailure="rehash",
            minLiveServers=3,
        )
        PoolSettings(upstream=servers, minLiveServers=3)
        PoolSettings(upstream=servers[:1], onFailure="rehash", minLiveServers=3)

    def test_protocol(self) -> None:
        """
        A protocol that does not exist is refused with a list of those that do.
        """
        self.assertEqual(PoolSettings(protocol="memcache"), PoolSettings())
        self.assertFaults(["protocol = 'http': expected memcache or redis or raw"], protocol="http")

    def test_sentinels(self) -> None:
        """
        Sentinels name the only server of a pool for Redis.
        """
        line = "sentinel:cache@10.0.0.1,10.0.0.2"
        pool = PoolSettings(protocol="redis", upstream=(line,), sentinelAuth="env:LOGIN")
        self.assertEqual((pool.hasSentinels, pool.distributionByKey, pool.servers), (True, None, ()))
        self.assertFaults(["expected protocol = redis"], upstream=(line,))
        self.assertFaults(["expected no other line"], protocol="redis", upstream=(line, "sentinel:b@c"))
        self.assertFaults(["has no use without sentinel:NAME@HOST:PORT"], protocol="redis", sentinelAuth="env:LOGIN")

    def test_passedLogins(self) -> None:
        """
        Servers of Redis can check the logins of clients, if the proxy needs none of its own.
        """
        PoolSettings(protocol="redis", auth="pass", upstream=("tcp:a:6379", "tcp:b:6379"), database=3)
        self.assertFaults(["auth = 'other': expected check or pass"], protocol="redis", auth="other")
        self.assertFaults(["auth = pass is for protocol redis, and protocol is memcache"], auth="pass")
        self.assertFaults(["auth = pass is for protocol redis, and protocol is raw"], protocol="raw", auth="pass")
        for name, value, why in (
            ("listenAuth", "env:LOGINS", "listen-auth has no use with auth = pass"),
            ("upstreamAuth", "env:LOGIN", "upstream-auth has no use with auth = pass"),
            ("upstream", ("sentinel:cache@10.0.0.1",), "auth = pass needs servers in upstream, not sentinels"),
            ("upstream", ("cluster:10.0.0.1:6379",), "auth = pass needs servers in upstream, not a cluster"),
        ):
            self.assertFaults([why], protocol="redis", auth="pass", **{name: value})

    def test_raw(self) -> None:
        """
        Settings that need to know the protocol are refused with C{protocol = raw}, each with its reason. Several
        servers must be equal.
        """
        two = ("tcp:a:5432", "tcp:b:5432")
        raw = PoolSettings(protocol="raw", leaseAt="first-byte", reset="none")
        self.assertEqual((raw.isOpaque, PoolSettings().isOpaque), (True, False))
        PoolSettings(protocol="raw", upstream=two, distribution="round-robin")
        self.assertFaults(["protocol raw cannot distribute keys among servers"], protocol="raw", upstream=two)
        for name, value, why in (
            ("upstreamAuth", "env:LOGIN", "upstream-auth has no use with protocol raw: it does not log in"),
            ("listenAuth", "env:LOGINS", "listen-auth has no use with protocol raw: clients cannot log in to it"),
            ("denyCommands", ("@write",), "deny-commands has no use with protocol raw: it finds no commands"),
            ("allowCommands", ("@read",), "allow-commands has no use with protocol raw: it finds no commands"),
            ("hash", "md5", "hash has no use with protocol raw: it finds no keys"),
            ("keepAlive", 5.0, "keep-alive has no use with protocol raw: it has no request for it"),
        ):
            self.assertFaults([why], protocol="raw", **{name: value})
        self.assertFaults(["reset is for protocol raw only"], reset="none")
        self.assertFaults(["lease-at is for protocol raw only"], protocol="redis", leaseAt="first-byte")

    def test_commandsOfProtocol(self) -> None:
        """
        The names of commands are those of the protocol. Those that are never forwarded are refused.
        """
        PoolSettings(protocol="redis", denyCommands=("zadd", "script|load"), allowCommands=("@read", "get"))
        self.assertFaults(
            ["denyCommands = ('touches',): no such command: touches; did you mean touch?"],
            protocol="redis",
            denyCommands=("touches",),
        )
        self.assertFaults(
            ["denyCommands = ('config|set',): config|set is about a server or a connection, and both are shared here"],
            protocol="redis",
            denyCommands=("config|set",),
        )

    def test_failsOver(self) -> None:
        """
        With C{protocol = redis}, servers of another pool cannot stand in for those that are down.
        """
        two = ("tcp:a:6379", "tcp:b:6379")
        self.assertIsNotNone(PoolSettings(protocol="redis", upstream=two).distributionByKey)
        self.assertFaults(
            ["protocol redis cannot use the servers of another pool; expected on-failure = fail or rehash"],
            protocol="redis",
            upstream=two,
            onFailure="failover",
            failover="other",
        )

    def test_fewConnections(self) -> None:
        """
        There is a connection for each server.
        """
        self.assertFaults(
            ["pool-size 1 has no connection for each of the 2 servers"],
            upstream=("tcp:a:1", "tcp:b:1"), distribution="round-robin", poolSize=1,
        )  # fmt: skip

    def test_poolSize(self) -> None:
        """
        The default of pool-size is at least the number of servers, also if these are replaced later. A number that was
        given stays.
        """
        servers = tuple(f"tcp:a:{port}" for port in range(1, 101))
        settings = PoolSettings(upstream=servers)
        self.assertEqual(settings.poolSize, 100)
        self.assertEqual(dataclasses.replace(settings, upstream=servers[:5]).poolSize, 5)
        self.assertEqual(dataclasses.replace(settings, upstream=servers[:2]).poolSize, 4)
        self.assertFaults(["pool-size 4 has no connection for each of the 5"], upstream=servers[:5], poolSize=4)

    def test_grow(self) -> None:
        """
        The default of session-unread-hard grows with max-item-size.
        """
        settings = PoolSettings(maxItemSize=64 << 20)
        self.assertGreater(settings.sessionUnreadHard, 64 << 20)
        self.assertEqual(dataclasses.replace(settings, poolSize=5).sessionUnreadHard, settings.sessionUnreadHard)

    def test_noRoom(self) -> None:
        """
        A value of session-unread-hard without room for an item is refused, not changed.
        """
        self.assertFaults(
            ["session-unread-hard 1048576 has no room"],
            sessionUnreadHard=1 << 20,
        )

    def test_unread(self) -> None:
        """
        The soft limit of unread bytes is not larger than the hard one.
        """
        self.assertFaults(
            ["session-unread-soft 8388608 is more than session-unread-hard 4194304"],
            sessionUnreadSoft=8 << 20,
            sessionUnreadHard=4 << 20,
        )


class SettingsTests(SynchronousTestCase):
    """
    Tests for L{Settings}.
    """

    def assertFaults(self, words: list[str], **values: Any) -> None:
        """
        Assert that settings are refused with lines that contain these words.
        """
        lines = str(self.assertRaises(ConfigError, Settings, **values)).splitlines()
        self.assertEqual(len(lines), len(words), lines)
        for line, expected in zip(lines, words, strict=True):
            self.assertIn(expected, line)

    def test_defaults(self) -> None:
        """
        By default there is one pool.
        """
        self.assertEqual(Settings(), Settings(pools=(PoolSettings(),), drainTimeout=5.0, maxUnreadBytes=256 << 20))

    def test_pools(self) -> None:
        """
        There is at least one pool, and their names are unique.
        """
        self.assertFaults(["pools: expected at least one"], pools=())
        two = (PoolSettings(), PoolSettings(listen=("tcp:1",)))
        self.assertFaults(["pools: two have one name"], pools=two)

    def test_stats(self) -> None:
        """
        Statistics have an address of their own.
        """
        Settings(stats="tcp:11213:interface=127.0.0.1")
        self.assertFaults(
            ["pool 'a': stats tcp:1 is in listen too; expected an address of its own"],
            pools=(PoolSettings(name="a", listen=("tcp:2", "tcp:1")),),
            stats="tcp:1",
        )
        self.assertFaults(["stats = 'nowhere': "], stats="nowhere")

    def test_itself(self) -> None:
        """
        A pool is not its own server.
        """
        self.assertFaults(
            ["pool 'a': tcp:localhost:7 is where this pool listens itself (tcp:7); expected the server"],
            pools=(PoolSettings(name="a", listen=("tcp:6", "tcp:7"), upstream=("tcp:b:7", "tcp:localhost:7")),),
        )

    def test_listen(self) -> None:
        """
        Two pools cannot listen on the same address.
        """
        pools = (PoolSettings(name="a"), PoolSettings(name="b"))
        self.assertFaults(["pool 'b': pool 'a' listens on tcp:11212:interface=127.0.0.1 too"], pools=pools)

    def test_listenAnywhere(self) -> None:
        """
        Two pools may listen on port 0, because each gets a port of its own.
        """
        listen = ("tcp:0:interface=127.0.0.1",)
        Settings(pools=(PoolSettings(name="a", listen=listen), PoolSettings(name="b", listen=listen)))

    def test_workers(self) -> None:
        """
        Each worker has a share of the pool: at least one connection to each server and one request that waits.
        """
        pools = (PoolSettings(poolSize=4),)
        Settings(workers=4, pools=pools)
        self.assertFaults(["pool-size 4 has no connection for each of 5 workers"], workers=5, pools=pools)
        pools = (PoolSettings(upstream=("tcp:a:1", "tcp:b:1"), distribution="round-robin", poolSize=4),)
        Settings(workers=2, pools=pools)
        text = "pool-size 4 has no connection to each of 2 servers for each of 3 workers"
        self.assertFaults([text], workers=3, pools=pools)
        pools = (PoolSettings(maxWaiting=1),)
        self.assertFaults(["max-waiting 1 is less than one for each of 2 workers"], workers=2, pools=pools)
        pools = (PoolSettings(upstream=("memory:",)),)
        self.assertFaults(["memory: is in one process, and 2 workers"], workers=2, pools=pools)

    def test_poolSize(self) -> None:
        """
        The default of pool-size is at least one for each worker and server, also if the workers are replaced later.
        """
        servers = ("tcp:a:1", "tcp:b:1")
        pools = (PoolSettings(name="a", upstream=servers, distribution="round-robin"), PoolSettings(listen=("tcp:1",)))
        settings = Settings(workers=3, pools=pools)
        self.assertEqual([pool.poolSize for pool in settings.pools], [6, 4])
        self.assertEqual(settings.pools[0].servers, pools[0].servers)
        self.assertEqual([pool.poolSize for pool in dataclasses.replace(settings, workers=8).pools], [16, 8])
        self.assertEqual(dataclasses.replace(settings, workers=1), Settings(pools=pools))

    @covers("28")
    def test_admin(self) -> None:
        """
        The console needs a password except on a UNIX socket, and has an address of its own.
        """
        Settings(admin="unix:/run/admin.sock:mode=600")
        self.assertFaults(["admin tcp:1 needs admin-password-file"], admin="tcp:1")
        password = Path(self.mktemp())
        password.write_text("secret\n", "ascii")
        Settings(admin="tcp:1", adminPasswordFile=str(password))
        pools = (PoolSettings(listen=("unix:/run/x",)),)
        self.assertFaults(["admin unix:/run/x is in listen too"], admin="unix:/run/x", pools=pools)

    def test_eachValue(self) -> None:
        """
        All values are checked, and all wrong ones are reported.
        """
        self.assertFaults(["drainTimeout = -1", "maxUnreadBytes = None"], drainTimeout=-1, maxUnreadBytes=None)


class OptionsTests(SynchronousTestCase):
    """
    Tests for the table of options.
    """

    def test_names(self) -> None:
        """
        Names and short names are unique, so that each can be an option and a key of [connpool].
        """
        names = [each.name for each in OPTIONS]
        self.assertEqual(sorted(set(names)), sorted(names))
        shorts = [each.short for each in OPTIONS if each.short]
        self.assertEqual(sorted(set(shorts)), sorted(shorts))

    def test_whole(self) -> None:
        """
        Each field is an option, except the name of a pool, the servers that were found, and the list of pools.
        """
        self.assertEqual(
            {each.name for each in dataclasses.fields(PoolSettings)} - {"name", "found"},
            {each.attribute for each in POOL_OPTIONS},
        )
        self.assertEqual(
            {each.name for each in dataclasses.fields(Settings)} - {"pools"},
            {each.attribute for each in PROCESS_OPTIONS},
        )

    def test_defaults(self) -> None:
        """
        Each default is right, and is parsed from the text that is shown for it.
        """
        for each in OPTIONS:
            each.checkValue(each.default)
            each.checkFiles(each.default)
            self.assertEqual(each.parse(each.show(each.default).split("\n")), each.default, each.name)


class FailoverTests(SynchronousTestCase):
    """
    Tests for pools that stand in for others.
    """

    def faults(self, *pools: PoolSettings) -> list[str]:
        """
        @return: the faults of settings with these pools.
        """
        try:
            Settings(pools=pools)
        except ConfigError as error:
            return [str(fault) for fault in error.faults]
        return []

    def test_right(self) -> None:
        """
        A pool may stand in for others, also for one with a single server.
        """
        a = PoolSettings(name="a", listen=("tcp:1",), onFailure="failover", failover="b")
        b = PoolSettings(name="b", listen=("tcp:2",), onFailure="rehash")
        self.assertEqual(self.faults(a, b), [])
        self.assertIsNotNone(a.distributionByKey)

    def test_wrong(self) -> None:
        """
        The other pool must exist, and may not need another one itself. Equal servers stand in for each other.
        """
        a = PoolSettings(name="a", listen=("tcp:1",), onFailure="failover", failover="b")
        b = PoolSettings(name="b", listen=("tcp:2",))
        for pools, text in (
            ((replace(a, failover=None), b), "needs the setting failover"),
            ((replace(a, failover="c"), b), "failover 'c' is no other pool; there are: b"),
            ((replace(a, failover="a"), b), "failover 'a' is no other pool; there are: b"),
            ((a, replace(b, onFailure="failover", failover="a")), "has `on-failure = failover` itself"),
            ((replace(a, upstream=("tcp:x:1", "tcp:y:1"), distribution="round-robin"), b), "not round-robin"),
        ):
            (first, *_) = self.faults(*pools)
            self.assertIn(text, first)
