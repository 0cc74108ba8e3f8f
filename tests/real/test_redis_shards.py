# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with several real Redis servers that share the keys.
"""

from __future__ import annotations

from signal import SIGCONT, SIGSTOP
from typing import Any, Self

from twisted.trial.unittest import SynchronousTestCase

from tests.real.operated import Operated
from tests.real.resp import Client, Push, ReplyError
from tests.real.servers import Nutcracker, Proxy, Redis, Twistd, missing, until

CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"


class OperatedRedis(Operated):
    """
    A proxy for Redis with an ini file and a console.
    """

    def write(self, *lines: str, **others: Any) -> None:
        """
        Write the ini file, see L{Operated.write}.
        """
        super().write("protocol = redis", *lines, **others)
        self.ini.write_text(self.ini.read_text("utf-8").replace("round-robin", "ketama"), "utf-8")

    def start(self) -> Self:
        """
        Start the proxy, and wait until it listens.
        """
        Twistd.start(self)
        return self


class ShardedCase(SynchronousTestCase):
    """
    Base class of tests with three servers and a proxy.
    """

    skip = missing("redis-server")
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        """
        Start them.
        """
        self.servers = [Redis().start() for _ in range(3)]
        for server in self.servers:
            self.addCleanup(server.stop)
        addresses = [server.address for server in self.servers]
        self.proxy = Proxy(
            "--protocol", "redis", "--distribution", "ketama", "--hash-tag", "{}", *self.options, upstream=addresses
        ).start()
        self.addCleanup(self.proxy.stop)

    def client(self, address: Any = None) -> Client:
        """
        @return: a client of the proxy, or of a server.
        """
        client = Client(address or self.proxy.address)
        self.addCleanup(client.close)
        return client

    def keys(self) -> list[str]:
        """
        @return: for each server, a key that it has.
        """
        client = self.client()
        for number in range(60):
            client.ask("SET", f"probe{number}", number)
        found = [self.client(server.address).ask("KEYS", "probe*")[0].decode() for server in self.servers]
        client.ask("FLUSHALL")
        return found

    def fails(self, client: Client, error: str, *words: Any) -> None:
        """
        Assert that a request gets an error.
        """
        self.assertIn(error, str(self.assertRaises(ReplyError, client.ask, *words)))

    def _fails(self, client: Client, key: str) -> bool:
        try:
            client.ask("GET", key)
        except ReplyError:
            return True
        return False


class KeyTests(ShardedCase):
    """
    Tests for requests with keys.
    """

    def test_single(self) -> None:
        """
        Each key is on one server, and those with the same hash tag are on the same one.
        """
        client = self.client()
        for number in range(100):
            client.send("SET", f"k{number}", number)
        self.assertEqual([client.read() for _ in range(100)], [b"OK"] * 100)
        for number in range(100):
            client.send("GET", f"k{number}")
        self.assertEqual([client.read() for _ in range(100)], [b"%d" % number for number in range(100)])
        sizes = [self.client(server.address).ask("DBSIZE") for server in self.servers]
        self.assertEqual(sum(sizes), 100)
        self.assertGreater(min(sizes), 0)
        self.assertEqual(client.ask("MSETNX", "{a}1", "x", "{a}2", "y"), 1)
        self.assertEqual(client.ask("EVAL", "return redis.call('GET', KEYS[1])", 1, "k7"), b"7")

    def test_divided(self) -> None:
        """
        Requests for keys on several servers are divided, in both versions of the protocol, and in every database.
        """
        keys = self.keys()
        for version in (2, 3):
            for database in (0, 3):
                client = self.client()
                client.ask("HELLO", version)
                client.ask("SELECT", database)
                pairs = [word for key in keys for word in (key, "v-" + key)]
                self.assertEqual(client.ask("MSET", *pairs, keys[0], "again"), b"OK")
                asked = [*reversed(keys), "none", keys[0]]
                values = [b"v-" + key.encode() for key in reversed(keys[1:])]
                self.assertEqual(client.ask("MGET", *asked), [*values, b"again", None, b"again"])
                self.assertEqual(client.ask("EXISTS", *asked), 4)
                self.assertEqual(client.ask("TOUCH", *keys), 3)
                self.assertEqual(client.ask("DBSIZE"), 3)
                self.assertEqual(client.ask("DEL", *keys[:2], "none"), 2)
                self.assertEqual(client.ask("UNLINK", *keys), 1)

    def test_apart(self) -> None:
        """
        Other requests for keys on several servers get the error of Redis Cluster.
        """
        client = self.client()
        one, two, _ = self.keys()
        for words in (
            ("MSETNX", one, 1, two, 2),
            ("RENAME", one, two),
            ("SINTER", one, two),
            ("PFCOUNT", one, two),
            ("EVAL", "return 1", 2, one, two),
            ("BLPOP", one, two, 1),
            ("WATCH", one, two),
            ("ZUNIONSTORE", one, 1, two),
        ):
            self.fails(client, CROSS_SLOT, *words)
        self.assertEqual(client.ask("PING"), b"PONG")

    def test_down(self) -> None:
        """
        If a server is down, requests for its keys fail, also together with others: no value is taken for missing.
        """
        client = self.client()
        keys = self.keys()
        client.ask("MSET", *[word for key in keys for word in (key, key)])
        self.servers[1].stop()
        until(lambda: self._fails(client, keys[1]))
        self.fails(client, "ERR", "MGET", *keys)
        self.fails(client, "ERR", "DEL", *keys[1:])
        self.fails(client, "ERR", "DBSIZE")
        self.assertEqual(client.ask("MGET", keys[0]), [keys[0].encode()])


class EveryServerTests(ShardedCase):
    """
    Tests for requests that concern all servers.
    """

    def test_joined(self) -> None:
        """
        The replies of all servers are joined.
        """
        client = self.client()
        self.assertIsNone(client.ask("RANDOMKEY"))
        names = {b"k%d" % number for number in range(50)}
        client.ask("MSET", *[word for name in names for word in (name, 1)])
        self.assertEqual(client.ask("DBSIZE"), 50)
        self.assertEqual(set(client.ask("KEYS", "*")), names)
        self.assertIn(client.ask("RANDOMKEY"), names)
        digest = client.ask("SCRIPT", "LOAD", "return 42")
        self.assertEqual(client.ask("SCRIPT", "EXISTS", digest, "0" * 40), [1, 0])
        for name in names:
            self.assertEqual(client.ask("EVALSHA", digest, 1, name), 42)
        self.assertEqual(client.ask("FLUSHALL"), b"OK")
        self.assertEqual(client.ask("DBSIZE"), 0)

    def test_scan(self) -> None:
        """
        C{SCAN} finds the keys of all servers, and ends with the cursor 0.
        """
        client = self.client()
        names = {b"k%d" % number for number in range(500)}
        client.ask("MSET", *[word for name in names for word in (name, 1)])
        found, cursor, rounds = set(), b"0", 0
        while rounds == 0 or cursor != b"0":
            cursor, keys = client.ask("SCAN", cursor, "COUNT", 50)
            found.update(keys)
            rounds += 1
        self.assertEqual(found, names)
        self.assertGreater(rounds, 8)
        self.fails(client, "ERR invalid cursor", "SCAN", "x")
        self.fails(client, "ERR invalid cursor", "SCAN", 5)

    def test_channels(self) -> None:
        """
        A message reaches the subscribers of its channel, and of patterns, each once and whatever server each has.
        """
        for number in range(8):
            subscriber, publisher = self.client(), self.client()
            channel = f"channel{number}".encode()
            self.assertEqual(subscriber.ask("SUBSCRIBE", channel), [b"subscribe", channel, 1])
            self.assertEqual(publisher.ask("PUBLISH", channel, "hello"), 1)
            self.assertEqual(subscriber.read(), [b"message", channel, b"hello"])
        subscriber, other = self.client(), self.client()
        other.ask("PSUBSCRIBE", "c*")
        channels = [f"c{number}".encode() for number in range(8)]
        subscriber.send("SUBSCRIBE", *channels)
        for number, channel in enumerate(channels, 1):
            self.assertEqual(subscriber.read(), [b"subscribe", channel, number])
        publisher = self.client()
        for channel in channels:
            self.assertEqual(publisher.ask("PUBLISH", channel, "hello"), 2)
            self.assertEqual(subscriber.read(), [b"message", channel, b"hello"])
            self.assertEqual(other.read(), [b"pmessage", b"c*", channel, b"hello"])
        self.assertEqual(publisher.ask("PUBSUB", "NUMSUB", "c1"), [b"c1", 1])

    def test_events(self) -> None:
        """
        Events of keys come from all servers, also with a pattern.
        """
        for server in self.servers:
            self.client(server.address).ask("CONFIG", "SET", "notify-keyspace-events", "KEA")
        keys = self.keys()
        one, all_ = self.client(), self.client()
        one.ask("SUBSCRIBE", "__keyevent@0__:set")
        all_.ask("PSUBSCRIBE", "__keyspace@0__:probe*")
        for key in keys:
            self.client().ask("SET", key, 1)
            self.assertEqual(one.read(), [b"message", b"__keyevent@0__:set", key.encode()])
            event = f"__keyspace@0__:{key}".encode()
            self.assertEqual(all_.read(), [b"pmessage", b"__keyspace@0__:probe*", event, b"set"])


class StateTests(ShardedCase):
    """
    Tests for clients with a connection of their own.
    """

    def test_transactions(self) -> None:
        """
        A transaction is one of the server of its first key.
        """
        client = self.client()
        keys = self.keys()
        for key in keys:
            client.send("MULTI")
            client.send("SET", key, 1)
            client.send("INCR", key)
            client.send("EXEC")
            client.send("GET", key)
            replies = [client.read() for _ in range(5)]
            self.assertEqual(replies, [b"OK", b"QUEUED", b"QUEUED", [b"OK", 2], b"2"])
        client.ask("MULTI")
        client.ask("SET", keys[0], 5)
        self.fails(client, CROSS_SLOT, "SET", keys[1], 5)
        self.fails(client, "EXECABORT", "EXEC")
        self.assertEqual(client.ask("MGET", *keys), [b"2", b"2", b"2"])

    def test_empty(self) -> None:
        """
        A transaction without commands needs no server.
        """
        client = self.client()
        for end, reply in (("EXEC", []), ("DISCARD", b"OK")):
            self.assertEqual((client.ask("MULTI"), client.ask(end)), (b"OK", reply))
        client.ask("MULTI")
        self.fails(client, "unknown command", "NOTHING")
        self.fails(client, "EXECABORT", "EXEC")
        self.assertEqual(client.ask("MULTI"), b"OK")
        self.assertEqual(client.ask("RESET"), b"RESET")
        self.fails(client, "ERR EXEC without MULTI", "EXEC")

    def test_watched(self) -> None:
        """
        A watched key that another client has changed fails the transaction.
        """
        client, other = self.client(), self.client()
        for key in self.keys():
            client.ask("SET", key, 1)
            client.ask("WATCH", key)
            self.assertEqual(client.ask("GET", key), b"1")
            other.ask("SET", key, 2)
            client.ask("MULTI")
            client.ask("SET", key, 3)
            self.assertIsNone(client.ask("EXEC"))
            self.assertEqual(client.ask("GET", key), b"2")

    def test_blocked(self) -> None:
        """
        A blocked client waits at the server of its key, and what it sends meanwhile is answered after that.
        """
        client, other = self.client(), self.client()
        keys = self.keys()
        for key in keys:
            client.send("BLPOP", key, 5)
            client.send("MGET", *keys)
            client.send("DBSIZE")
            client.send("SET", keys[0] + "x", 1)
            other.ask("RPUSH", key, "element")
            self.assertEqual(client.read(), [key.encode(), b"element"])
            self.assertEqual(client.read(), [None] * 3)
            client.read()
            self.assertEqual(client.read(), b"OK")

    def test_resp3(self) -> None:
        """
        A subscriber in RESP3 may use the keys of all servers.
        """
        client = self.client()
        keys = self.keys()
        client.ask("HELLO", 3)
        client.send("SUBSCRIBE", keys[0])
        self.assertIsInstance(client.read(), Push)
        for key in keys:
            self.assertEqual(client.ask("SET", key, 1), b"OK")
        self.assertEqual(client.ask("DBSIZE"), len(keys))


class ReloadTests(SynchronousTestCase):
    """
    Tests for other servers after a reload.
    """

    skip = missing("redis-server")

    def test_servers(self) -> None:
        """
        One server becomes three, three become two, and two become one. New clients have the right servers each time,
        also for transactions.
        """
        servers = [Redis().start() for _ in range(3)]
        for server in servers:
            self.addCleanup(server.stop)
        upstream = [server.endpoint for server in servers]
        proxy = OperatedRedis(upstream=upstream[:1]).start()
        self.addCleanup(proxy.stop)
        for count in (1, 3, 2, 1):
            proxy.write("max-pinned = 9", "pool-size = 6", upstream=upstream[:count])
            proxy.hangUp("reloaded, ")
            for server in servers:
                with Client(server.address) as direct:
                    direct.ask("FLUSHALL")
            with Client(proxy.address) as client:
                client.ask("HELLO", 3)
                client.ask("SELECT", 1)
                for number in range(60):
                    client.send("MULTI")
                    client.send("SET", f"k{number}", number)
                    client.send("EXEC")
                    client.send("GET", f"k{number}")
                replies = [client.read() for _ in range(240)]
                self.assertEqual(replies[3::4], [b"%d" % number for number in range(60)])
                self.assertEqual(client.ask("DBSIZE"), 60)
            sizes = []
            for server in servers:
                with Client(server.address) as direct:
                    direct.ask("SELECT", 1)
                    sizes.append(direct.ask("DBSIZE"))
            self.assertEqual([size > 0 for size in sizes], [number < count for number in range(3)])
        self.assertEqual(len(proxy.rows("servers")), 1)

    def test_subscribers(self) -> None:
        """
        A client is closed when one of its channels has got another server, and gets messages when it subscribes again.
        """
        servers = [Redis().start() for _ in range(2)]
        for server in servers:
            self.addCleanup(server.stop)
        upstream = [server.endpoint for server in servers]
        proxy = OperatedRedis(upstream=upstream).start()
        self.addCleanup(proxy.stop)
        channels = [f"c{number}" for number in range(100)]
        clients = []
        for channel in channels:
            clients.append(Client(proxy.address, 30.0))
            self.addCleanup(clients[-1].close)
            clients[-1].ask("SUBSCRIBE", channel)
        third = Redis().start()
        self.addCleanup(third.stop)
        proxy.write("max-pinned = 9", "pool-size = 6", upstream=[*upstream, third.endpoint])
        proxy.hangUp("reloaded, ")
        with Client(proxy.address, 30.0) as publisher:
            counts = [publisher.ask("PUBLISH", channel, "x") for channel in channels]
            self.assertEqual(set(counts), {0, 1})
            for channel, count, client in zip(channels, counts, clients, strict=True):
                if count:
                    self.assertEqual(client.read(), [b"message", channel.encode(), b"x"])
                else:
                    self.assertRaises((EOFError, ConnectionError), client.read)
                    with Client(proxy.address, 30.0) as again:
                        again.ask("SUBSCRIBE", channel)
                        self.assertEqual(publisher.ask("PUBLISH", channel, "y"), 1)
                        self.assertEqual(again.read(), [b"message", channel.encode(), b"y"])


class FaultTests(ShardedCase):
    """
    Tests for servers that fail while many clients send requests.
    """

    options = ("--request-timeout", "2", "--wait-timeout", "2")

    def test_frozen(self) -> None:
        """
        While a server hangs, only requests for its keys fail, and no client gets the reply to another request.
        """
        keys = self.keys()
        clients = [self.client() for _ in range(12)]
        self.servers[1].signal(SIGSTOP)
        self.addCleanup(self.servers[1].signal, SIGCONT)
        for number, client in enumerate(clients):
            for key in keys:
                client.send("SET", f"{{{key}}}{number}", number)
            client.send("MGET", *[f"{{{key}}}{number}" for key in keys])
            client.send("ECHO", number)
        for number, client in enumerate(clients):
            outcomes = [self._answer(client) for _ in range(len(keys) + 2)]
            self.assertEqual(outcomes.pop(), b"%d" % number)
            self.assertEqual(outcomes, [b"OK", None, b"OK", None])
        self.servers[1].signal(SIGCONT)
        until(lambda: not self._fails(clients[0], keys[1]))
        self.assertEqual(clients[0].ask("MGET", *keys), [None] * 3)

    def _answer(self, client: Client) -> Any:
        """
        @return: the reply, or C{None} for an error.
        """
        try:
            return client.read()
        except ReplyError:
            return None


class TwemproxyTests(SynchronousTestCase):
    """
    Tests for a proxy that takes the place of twemproxy.
    """

    skip = missing("redis-server", "nutcracker")

    def test_sameServers(self) -> None:
        """
        Keys are where twemproxy has stored them, also those with a hash tag.
        """
        servers = [Redis().start() for _ in range(3)]
        for server in servers:
            self.addCleanup(server.stop)
        addresses = [server.address for server in servers]
        settings = ("redis: true", "distribution: ketama", "hash: fnv1a_64", 'hash_tag: "{}"')
        other = Nutcracker(upstream=addresses, settings=settings).start()
        self.addCleanup(other.stop)
        upstream = [f"{server.endpoint} label=server{number}" for number, server in enumerate(servers)]
        proxy = OperatedRedis(upstream=upstream)
        proxy.write("hash-tag = {}", upstream=upstream)
        proxy.ini.write_text(proxy.ini.read_text("utf-8").replace("= ketama", "= twemproxy"), "utf-8")
        proxy.start()
        self.addCleanup(proxy.stop)
        names = [f"k{number}" for number in range(200)] + [f"{{tag{number % 20}}}{number}" for number in range(200)]
        with Client(other.address) as client:
            for name in names:
                client.send("SET", name, name)
            self.assertEqual([client.read() for _ in names], [b"OK"] * len(names))
        with Client(proxy.address) as client:
            self.assertEqual(client.ask("MGET", *names), [name.encode() for name in names])
            self.assertEqual(client.ask("DBSIZE"), len(names))
