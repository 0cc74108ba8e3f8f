# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with real Redis servers.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.redisfuzz import difference, exchange, stream
from tests.real.redistable import generate
from tests.real.resp import Client, Push, ReplyError, request
from tests.real.servers import PATIENCE, SOURCE, Proxy, Redis, connect, everything, missing, until

redis: Any = import_module("redis") if find_spec("redis") else None
redisAsyncio: Any = import_module("redis.asyncio") if redis else None


class RedisCase(SynchronousTestCase):
    """
    Base class of tests with a server and a proxy.
    """

    skip = missing("redis-server")
    options: tuple[str, ...] = ()
    serverOptions: tuple[str, ...] = ()

    def setUp(self) -> None:
        """
        Start them.
        """
        self.server = Redis(*self.serverOptions).start()
        self.addCleanup(self.server.stop)
        self.proxy = Proxy("--protocol", "redis", *self.options, upstream=[self.server.address]).start()
        self.addCleanup(self.proxy.stop)

    def client(self, direct: bool = False) -> Client:
        """
        @return: a client of the proxy, or of the server.
        """
        client = Client(self.server.address if direct else self.proxy.address)
        self.addCleanup(client.close)
        return client


#: What the list of clients shows about those who subscribe or are blocked.
_ENGAGED = re.compile(rb" [ps]?sub=[1-9]| flags=\S*b")


class TableTests(RedisCase):
    """
    Tests for C{tests/real/redistable.py}.
    """

    def test_current(self) -> None:
        """
        The table of commands is that of a server of the version that it names.
        """
        text = (SOURCE / "txconnpool" / "wire" / "redis" / "table.py").read_text()
        with Client(self.server.address) as client:
            made = generate(client)
        version = made.split("commands of Redis ", 1)[1].split(". ")[0]
        if version not in text:
            self.skipTest(f"the table is of another version than {version}")
        self.assertEqual(made, text)


class DifferentialTests(RedisCase):
    """
    The same streams of requests are sent to the server and to the proxy.
    """

    def test_streams(self) -> None:
        """
        The replies have the same bytes, and the same streams end with the end of the connection.
        """
        seed = int(os.environ.get("TXCONNPOOL_FUZZ_SEED") or random.randrange(1 << 32))
        end = time.monotonic() + min(30.0, float(os.environ.get("TXCONNPOOL_FUZZ_SECONDS", "6")))
        direct = self.client(True)
        while time.monotonic() < end:
            data = stream(random.Random(seed))
            outcomes = []
            for address in (self.server.address, self.proxy.address):
                # The server may not have noticed yet that a client which subscribed, or is blocked, has left.
                until(lambda: not _ENGAGED.search(direct.ask("CLIENT", "LIST")), what="the end of other clients")
                direct.ask("FLUSHALL")
                try:
                    outcomes.append(exchange(address, data, random.Random(seed + 1)))
                except TimeoutError as e:
                    self.fail(f"seed {seed}: no reply in time: {e}")
            self.assertEqual(difference(data, *outcomes), "", f"seed {seed}: {data!r}")
            seed += 1


class TimeoutTests(RedisCase):
    """
    Tests for clients with connections of their own, and short timeouts.
    """

    options = ("--pool-size", "2", "--max-pinned", "3", "--request-timeout", "1", "--wait-timeout", "1")

    def test_blocking(self) -> None:
        """
        A client may be blocked for longer than C{request-timeout}, and does not hold up others.
        """
        blocked, other = self.client(), self.client()
        blocked.send("BLPOP", "list", 0)
        time.sleep(1.5)
        self.assertEqual(other.ask("RPUSH", "list", "x"), 1)
        self.assertEqual(blocked.read(), [b"list", b"x"])
        self.assertEqual(blocked.ask("BLPOP", "list", 0.1), None)

    def test_bound(self) -> None:
        """
        The number of connections of clients' own is limited: one more client waits, and then gets an error.
        """
        clients = [self.client() for _ in range(4)]
        for client in clients[:3]:
            client.ask("MULTI")
        before = time.monotonic()
        self.assertIn("timed out waiting for a connection", str(clients[3].result("MULTI")))
        self.assertGreater(time.monotonic(), before + 0.9)
        self.assertEqual(clients[3].ask("SET", "k", 1), b"OK")
        clients[0].ask("EXEC")
        self.assertEqual(clients[3].ask("MULTI"), b"OK")

    def test_frozen(self) -> None:
        """
        Requests to a server that does not answer get an error in time, and no client gets another's reply.
        """
        clients = [self.client() for _ in range(10)]
        for number, client in enumerate(clients):
            client.ask("SET", f"k{number}", number)
        self.server.freeze()
        for number, client in enumerate(clients):
            client.send("GET", f"k{number}")
        for client in clients:
            self.assertRaises(ReplyError, client.read)
        self.server.thaw()
        for number, client in enumerate(clients):
            until(lambda: client.result("GET", f"k{number}") == b"%d" % number)  # noqa: B023  called at once


class SharedTests(RedisCase):
    """
    Tests for clients that share connections.
    """

    options = ("--pool-size", "2", "--max-pinned", "3")

    def connections(self) -> int:
        """
        @return: the number of connections of the server, without this one.
        """
        return int(self.client(True).ask("INFO", "clients").split(b"connected_clients:")[1].split(b"\r")[0]) - 1

    def test_fewConnections(self) -> None:
        """
        Many clients, of both versions of the protocol, share a few connections.
        """
        clients = [self.client() for _ in range(30)]
        for number, client in enumerate(clients):
            if number % 2:
                client.ask("HELLO", 3)
            client.send("SET", f"k{number}", number)
        self.assertEqual([client.read() for client in clients], [b"OK"] * 30)
        for number, client in enumerate(clients):
            self.assertEqual(client.ask("GET", f"k{number}"), b"%d" % number)
        self.assertLessEqual(self.connections(), 4)
        self.assertEqual(clients[1].ask("CONFIG", "HELP")[0][:6], b"CONFIG")
        self.assertEqual(clients[1].ask("HGETALL", "nothing"), {})
        self.assertEqual(clients[0].ask("HGETALL", "nothing"), [])

    def test_databases(self) -> None:
        """
        Each client has its own database.
        """
        one, two = self.client(), self.client()
        one.ask("SELECT", 1)
        one.ask("SET", "k", "one")
        self.assertEqual((one.ask("GET", "k"), two.ask("GET", "k")), (b"one", None))
        one.ask("WATCH", "k")
        one.ask("SELECT", 2)
        self.assertEqual((one.ask("GET", "k"), one.ask("UNWATCH"), one.ask("GET", "k")), (None, b"OK", None))
        one.ask("SELECT", 1)
        self.assertEqual(one.ask("GET", "k"), b"one")
        self.assertRaises(ReplyError, one.ask, "SELECT", 16)

    def test_transactions(self) -> None:
        """
        Transactions of clients do not mix. A change of a watched key makes one fail.
        """
        one, two = self.client(), self.client()
        one.socket.sendall(
            b"".join(request(*words.split()) for words in ("SET k 1", "MULTI", "GET k", "EXEC", "GET k"))
        )
        self.assertEqual([one.read() for _ in range(5)], [b"OK", b"OK", b"QUEUED", [b"1"], b"1"])
        one.ask("WATCH", "k")
        two.ask("SET", "k", 2)
        one.ask("MULTI")
        one.ask("SET", "k", 3)
        self.assertEqual((two.ask("GET", "k"), one.ask("EXEC"), one.ask("GET", "k")), (b"2", None, b"2"))

    def test_blockedClientLeaves(self) -> None:
        """
        A blocked client that leaves, or closes its side, takes no element.
        """
        for half in (False, True):
            blocked = self.client()
            blocked.send("BLPOP", "list", 0)
            until(lambda: b"blocked_clients:1" in self.client(True).ask("INFO", "clients"))
            if half:
                blocked.socket.shutdown(1)
                self.assertRaises(ConnectionResetError, blocked.socket.recv, 1)
            else:
                blocked.close()
            until(lambda: b"blocked_clients:0" in self.client(True).ask("INFO", "clients"))
        self.assertEqual(self.client().ask("RPUSH", "list", "x"), 1)
        self.assertEqual(self.client().ask("LLEN", "list"), 1)

    def test_clean(self) -> None:
        """
        A connection that a client had for itself is clean when the next one gets it.
        """
        for _ in range(20):
            client = self.client()
            client.ask("HELLO", 3)
            client.ask("SELECT", 3)
            client.ask("CLIENT", "TRACKING", "ON")
            client.ask("SUBSCRIBE", "news")
            client.ask("UNSUBSCRIBE")
            client.ask("CLIENT", "TRACKING", "OFF")
            other = self.client()
            self.assertEqual(other.ask("MULTI"), b"OK")
            self.assertEqual(other.ask("GET", "k"), b"QUEUED")
            self.assertEqual(other.ask("EXEC"), [None])
            client.close()
            other.close()

    def test_subscribers(self) -> None:
        """
        Each subscriber gets the messages of its channels, and only these.
        """
        two, three, other = self.client(), self.client(), self.client()
        three.ask("HELLO", 3)
        self.assertEqual(two.ask("SUBSCRIBE", "news"), [b"subscribe", b"news", 1])
        self.assertEqual(three.ask("PSUBSCRIBE", "n*"), Push([b"psubscribe", b"n*", 1]))
        self.assertEqual(other.ask("PUBLISH", "news", "hi"), 2)
        self.assertEqual(two.read(), [b"message", b"news", b"hi"])
        self.assertEqual(three.read(), Push([b"pmessage", b"n*", b"news", b"hi"]))
        self.assertEqual(three.ask("GET", "k"), None)
        two.close()
        until(lambda: other.ask("PUBLISH", "news", "again") == 1)
        self.assertIsNone(other.ask("GET", "k"))

    def test_tracking(self) -> None:
        """
        A client that caches values is sent the keys that others change.
        """
        client, other = self.client(), self.client()
        client.ask("HELLO", 3)
        client.ask("CLIENT", "TRACKING", "ON")
        client.ask("GET", "k")
        other.ask("SET", "k", 1)
        self.assertEqual(client.read(), Push([b"invalidate", [b"k"]]))

    def test_scripts(self) -> None:
        """
        Errors that a script makes up are passed on, and lead to nothing else.
        """
        client = self.client()
        for text in ("MOVED 1 10.0.0.1:22", "ASK 1 10.0.0.1:22", "LOADING x", "READONLY y"):
            script = f"redis.call('INCR', KEYS[1]); return redis.error_reply('{text}')"
            self.assertEqual(str(client.result("EVAL", script, 1, text)), text)
            self.assertEqual(client.ask("GET", text), b"1")

    def test_large(self) -> None:
        """
        Large values, and replies with very many elements, are passed on.
        """
        client = self.client()
        value = random.randbytes(900000)
        client.ask("SET", "big", value)
        self.assertEqual(client.ask("GET", "big"), value)
        client.ask("RPUSH", "list", *range(20000))
        self.assertEqual(len(client.ask("LRANGE", "list", 0, -1)), 20000)
        self.assertEqual(str(client.result("SET", "big", bytes((1 << 20) + 1))),
                         "ERR Protocol error: invalid bulk length")  # fmt: skip

    def test_restart(self) -> None:
        """
        Requests to a server that is down get an error, and those after its restart are answered.
        """
        client = self.client()
        client.ask("SET", "k", 1)
        self.server.kill()
        self.assertIsInstance(client.result("GET", "k"), ReplyError)
        self.assertIsInstance(client.result("MULTI"), ReplyError)
        self.server.start()
        until(lambda: client.result("GET", "k") is None)
        until(lambda: client.result("MULTI") == b"OK")


class DirectoryTests(RedisCase):
    """
    Tests for clients that ask about the clients of the proxy.
    """

    options = ("--stats-addresses", "yes")

    #: What differs between two connections, and what the proxy does not count as Redis does.
    _OWN = frozenset(["id", "addr", "laddr", "age", "idle", "qbuf", "qbuf-free", "argv-mem", "omem", "tot-mem"])

    def lines(self, client: Client, *words: object) -> list[dict[str, str]]:
        """
        @return: the fields of each client in the reply to a request.
        """
        lines = client.ask(*words).decode().removeprefix("txt:").splitlines()
        return [dict(field.split("=", 1) for field in line.split(" ")) for line in lines]

    def blocks(self, client: Client) -> bool:
        """
        @return: whether a client that C{client} sees is blocked.
        """
        return any("b" in each["flags"] for each in self.lines(client, "CLIENT", "LIST"))

    def assertClosed(self, client: Client) -> None:
        """
        Assert that a client gets nothing more, because it is closed.
        """
        with self.assertRaises((EOFError, ConnectionResetError)):
            client.read()

    def test_described(self) -> None:
        """
        Clients are described as the server describes its own in the same state.
        """
        found = []
        for direct in (True, False):
            asking = self.client(direct)
            asking.ask("CLIENT", "SETNAME", "asking")
            busy, subscriber, blocked = (self.client(direct) for _ in range(3))
            for words in (("SELECT", 5), ("CLIENT", "SETNAME", "busy"), ("MULTI",), ("SET", "k", 1), ("GET", "k")):
                busy.ask(*words)
            subscriber.ask("HELLO", 3)
            subscriber.ask("CLIENT", "SETNAME", "subscriber")
            subscriber.ask("CLIENT", "TRACKING", "ON")
            subscriber.ask("SUBSCRIBE", "x", "y")
            subscriber.read()
            subscriber.ask("PSUBSCRIBE", "*")
            blocked.ask("CLIENT", "SETNAME", "blocked")
            blocked.send("BLPOP", "none", 0)
            names = {"asking", "busy", "subscriber", "blocked"}
            until(partial(self.blocks, asking), what="a blocked client")
            lines = {each["name"]: each for each in self.lines(asking, "CLIENT", "LIST") if each["name"] in names}
            self.assertEqual(set(lines), names)
            place = "{}:{}".format(*asking.socket.getsockname()[:2]), "{}:{}".format(*asking.socket.getpeername()[:2])
            self.assertEqual((lines["asking"]["addr"], lines["asking"]["laddr"]), place)
            self.assertEqual(self.lines(asking, "CLIENT", "INFO")[0]["id"], lines["asking"]["id"])
            kinds = [{each["name"] for each in self.lines(asking, "CLIENT", "LIST", "TYPE", kind)} & names
                     for kind in ("normal", "pubsub", "replica")]  # fmt: skip
            found.append((lines, kinds))
            for client in (asking, busy, subscriber, blocked):
                client.close()
        (server, kinds), (proxy, itsKinds) = found
        self.assertEqual(kinds, itsKinds)
        for name, line in proxy.items():
            self.assertEqual(line.keys() - server[name].keys(), set())
            for field in line.keys() - self._OWN:
                self.assertEqual((name, field, line[field]), (name, field, server[name][field]))

    def test_killed(self) -> None:
        """
        Clients are closed by number, by address and by what they do, as the server closes its own.
        """
        for direct in (True, False):
            asking = self.client(direct)
            first, second, subscriber, last = (self.client(direct) for _ in range(4))
            address = "{}:{}".format(*second.socket.getsockname()[:2])
            self.assertEqual(asking.ask("CLIENT", "KILL", "ID", first.ask("CLIENT", "ID")), 1)
            self.assertClosed(first)
            second.ask("PING")
            self.assertEqual(asking.ask("CLIENT", "KILL", address), b"OK")
            self.assertClosed(second)
            subscriber.ask("SUBSCRIBE", "x")
            self.assertEqual(asking.ask("CLIENT", "KILL", "TYPE", "pubsub"), 1)
            self.assertClosed(subscriber)
            self.assertEqual(last.ask("CLIENT", "KILL", "ID", last.ask("CLIENT", "ID"), "SKIPME", "no"), 1)
            self.assertClosed(last)
            self.assertEqual(asking.ask("PING"), b"PONG")


class InfoTests(RedisCase):
    """
    Tests for C{INFO}.
    """

    def test_sections(self) -> None:
        """
        A client gets the sections that the server has, and that of the proxy after them, in both versions of the
        protocol.
        """
        direct, client = self.client(True), self.client()
        for version in (2, 3):
            for each in (direct, client):
                each.ask("HELLO", version)
            for words in ((), ("all",), ("everything",), ("default",), ("server", "proxy"), ("proxy",)):
                its, mine = (each.askText("INFO", *words) for each in (direct, client))
                self.assertEqual(self.sections(mine), [*self.sections(its), "# Proxy"], words)
            for words in (("server",), ("keyspace", "cpu"), ("nonsense",)):
                its, mine = (each.askText("INFO", *words) for each in (direct, client))
                self.assertEqual(self.sections(mine), self.sections(its), words)
            self.assertEqual(mine[:4] == "txt:", version == 3)

    def sections(self, text: Any) -> list[str]:
        """
        @return: the first lines of the sections of a reply.
        """
        return re.findall("# [A-Za-z]+", text)

    def test_values(self) -> None:
        """
        The section has what the proxy counts.
        """
        client = self.client()
        client.ask("SET", "k", 1)
        client.ask("GET", "k")
        client.ask("GET", "none")

        def counted() -> bool:
            lines = client.askText("INFO", "proxy").splitlines()
            found = dict(line.split(":", 1) for line in lines[1:])
            self.assertEqual((found["proxy_mode"], found["proxy_curr_connections"]), ("single", "1"))
            return (found["proxy_get_hits"], found["proxy_get_misses"]) == ("1", "1")

        until(counted, what="the counters, which are a second old at most")


class LearnTests(RedisCase):
    """
    Tests for commands that the table of the proxy lacks. The server has some under other names.
    """

    serverOptions = (
        *("--rename-command", "GETRANGE", "x.part"),
        *("--rename-command", "BLPOP", "x.pop"),
        *("--rename-command", "OBJECT", "x.object"),
        *("--rename-command", "SAVE", "x.save"),
    )

    def test_replies(self) -> None:
        """
        The replies are those of the server: of commands with keys, with subcommands, that block, and in transactions.
        """
        outcomes = []
        for direct in (True, False):
            client = self.client(direct)
            client.ask("FLUSHALL")
            client.ask("SET", "k", "value")
            outcomes.append([
                str(client.result(*words.split(" ")))
                for words in (
                    "x.part k 1 2", "X.PART k 0 0", "x.part k 1", "x.object encoding k", "x.object foo k", "x.object",
                    "x.pop none 0.01", "MULTI", "x.part k 0 1", "x.pop none 0", "EXEC", "x.none k 1", "x.none",
                    "MULTI", "x.none", "EXEC", "x.part k 0 -1",
                )
            ])  # fmt: skip
            client.send("x.pop", "list", "0")
            self.client(True).ask("RPUSH", "list", "a")
            outcomes[-1].append(str(client.read()))
        self.assertEqual(outcomes[0], outcomes[1])

    def test_refused(self) -> None:
        """
        A command for operators is refused.
        """
        reply = str(self.client().result("x.save"))
        self.assertEqual(reply, "ERR unknown command 'save': the proxy does not forward it")

    def test_restart(self) -> None:
        """
        A command that the server did not know is forwarded when it has been restarted with it.
        """
        client = self.client()
        self.assertIn("unknown command", str(client.result("x.length", "k")))
        self.server.stop()
        self.server.options = (*self.server.options, "--rename-command", "STRLEN", "x.length")
        self.server.start()
        until(lambda: client.result("x.length", "k") == 0, what="a command of the new server")


class LoadingTests(RedisCase):
    """
    Tests with a server that loads its data, for as long as the test wants.
    """

    serverOptions = ("--enable-debug-command", "yes", "--rdbcompression", "no",
                     "--loading-process-events-interval-bytes", "1024")  # fmt: skip

    def setUp(self) -> None:
        """
        Give the server data, and let it load them slowly.
        """
        super().setUp()
        self.operator = self.client(True)
        self.operator.ask("SET", "k", "value")
        for number in range(1000):
            self.operator.ask("SET", f"filler:{number}", str(number) * 500)
        self.operator.ask("CONFIG", "SET", "key-load-delay", 50000)
        self.reloading = self.client(True)

    def load(self) -> None:
        """
        Let the server load its data again. Its connections stay.
        """
        self.reloading.send("DEBUG", "RELOAD")
        until(lambda: "LOADING" in str(self.operator.result("GET", "k")), what="LOADING")

    def finish(self) -> None:
        """
        Let the server come to the end of it.
        """
        self.operator.ask("CONFIG", "SET", "key-load-delay", 0)
        self.assertEqual(self.reloading.read(), b"OK")

    def test_loading(self) -> None:
        """
        Meanwhile clients stay, and get an error for each request, which is not executed. Then they are served again.
        """
        client, other = self.client(), self.client()
        self.assertEqual([client.ask("INCR", "n"), other.ask("GET", "k")], [1, b"value"])
        self.load()
        for _ in range(5):
            client.send("INCR", "n")
            client.send("GET", "k")
            other.send("MGET", "k", "n")
            for each in (client, client, other):
                self.assertRaises(ReplyError, each.read)
        self.assertEqual((client.ask("PING"), other.ask("ECHO", "x")), (b"PONG", b"x"))
        self.finish()
        until(lambda: other.result("GET", "k") == b"value", what="the end of LOADING")
        self.assertEqual((client.ask("INCR", "n"), self.operator.ask("GET", "n")), (2, b"2"))

    def test_ends(self) -> None:
        """
        A client that comes while the server loads, and repeats its request, gets its reply when the server is ready.
        """
        self.load()
        client = self.client()
        self.assertRaises(ReplyError, client.ask, "SET", "k", "new")
        self.finish()
        until(lambda: client.result("SET", "k", "new") == b"OK", what="the end of LOADING")
        self.assertEqual(self.operator.ask("GET", "k"), b"new")


class DatabaseTests(RedisCase):
    """
    Tests for clients that begin in another database.
    """

    options = ("--database", "3")

    def test_begin(self) -> None:
        """
        Requests are executed in it, on shared connections and on those of a client's own, until another one is
        selected. C{RESET} selects it again.
        """
        client, direct = self.client(), self.client(True)
        client.ask("SET", "k", 3)
        direct.ask("SELECT", 3)
        self.assertEqual(direct.ask("GET", "k"), b"3")
        for _ in range(2):
            client.ask("MULTI")
            client.ask("INCR", "k")
            client.ask("EXEC")
        self.assertEqual(direct.ask("GET", "k"), b"5")
        client.ask("SELECT", 0)
        self.assertEqual(client.ask("GET", "k"), None)
        client.ask("MULTI")
        client.ask("SET", "k", 0)
        client.ask("EXEC")
        self.assertEqual(client.ask("GET", "k"), b"0")
        client.ask("RESET")
        self.assertEqual(client.ask("GET", "k"), b"5")
        self.assertEqual(client.ask("DBSIZE"), 1)


class LoginTests(RedisCase):
    """
    Tests for servers and proxies with passwords.
    """

    serverOptions = ("--requirepass", "upstream")

    def setUp(self) -> None:
        """
        Start a proxy with two users.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "up").write_text("default:upstream\n")
        (directory / "down").write_text("default:secret\nann:pass\n")
        for path in directory.iterdir():
            path.chmod(0o600)
        self.options = (
            "--upstream-auth", f"file:{directory.resolve()}/up", "--listen-auth", f"file:{directory.resolve()}/down",
        )  # fmt: skip
        super().setUp()

    def test_login(self) -> None:
        """
        A client has to log in; the proxy logs in to the server by itself.
        """
        client = self.client()
        self.assertEqual(str(client.result("GET", "k")), "NOAUTH Authentication required.")
        self.assertIn("WRONGPASS", str(client.result("AUTH", "wrong")))
        self.assertEqual((client.ask("AUTH", "secret"), client.ask("SET", "k", 1)), (b"OK", b"OK"))
        client = self.client()
        self.assertEqual(client.ask("HELLO", 3, "AUTH", "ann", "pass", "SETNAME", "me")[b"proto"], 3)
        self.assertEqual((client.ask("CLIENT", "GETNAME"), client.ask("HGETALL", "x")), (b"me", {}))
        self.assertEqual(client.ask("RESET"), b"RESET")
        self.assertIn("NOAUTH", str(client.result("GET", "k")))
        self.assertEqual((client.ask("AUTH", "secret"), client.ask("GET", "k")), (b"OK", b"1"))
        self.assertEqual((client.ask("MULTI"), client.ask("EXEC"), client.ask("MULTI")), (b"OK", [], b"OK"))

    def test_strangers(self) -> None:
        """
        What a client may send before it has logged in is limited.
        """
        with connect(self.proxy.address) as client:
            client.sendall(b"*11\r\n")
            self.assertEqual(everything(client), b"-ERR Protocol error: unauthenticated multibulk length\r\n")


class RedisPyTests(RedisCase):
    """
    Tests with redis-py.
    """

    skip = missing("redis-server") or (None if redis else "redis-py is not installed")

    @property
    def place(self) -> tuple[str, int]:
        """
        The address of the proxy.
        """
        address = self.proxy.address
        assert not isinstance(address, str)
        return address

    def test_info(self) -> None:
        """
        It reads the section of the proxy as those of the server.
        """
        with redis.Redis(*self.place) as client:
            info = client.info()
        self.assertEqual((info["redis_mode"], info["proxy_mode"]), ("standalone", "single"))

    def test_blocking(self) -> None:
        """
        The blocking client, with both versions of the protocol.
        """
        host, port = self.place
        for protocol in (2, 3):
            with redis.Redis(host=host, port=int(port), protocol=protocol, db=1, client_name="me") as client:
                client.flushdb()
                self.assertTrue(client.set("k", "v", ex=100))
                self.assertEqual(client.mget("k", "x"), [b"v", None])
                with client.pipeline() as pipeline:
                    self.assertEqual(pipeline.incr("n").get("n").execute(), [1, b"1"])
                with client.pipeline(transaction=False) as pipeline:
                    self.assertEqual(pipeline.incr("n").get("n").execute(), [2, b"2"])

                def addOne(pipeline: Any) -> None:
                    value = int(pipeline.get("n"))
                    pipeline.multi()
                    pipeline.set("n", value + 1)

                client.transaction(addOne, "n")
                self.assertEqual(client.get("n"), b"3")
                client.zadd("z", {"a": 1, "b": 2})
                self.assertEqual(len(client.zrange("z", 0, -1, withscores=True)), 2)
                client.xadd("s", {"f": "v"})
                self.assertTrue(client.xread({"s": "0"}, block=100))
                self.assertEqual(sorted(client.scan_iter()), [b"k", b"n", b"s", b"z"])
                self.assertEqual(client.register_script("return ARGV[1]")(args=["x"]), b"x")
                with client.lock("lock", timeout=60):
                    self.assertIsNotNone(client.get("lock"))
                with client.pubsub() as channel:
                    channel.subscribe("c")
                    self.assertEqual(channel.get_message(timeout=PATIENCE)["type"], "subscribe")
                    client.publish("c", "hello")
                    self.assertEqual(channel.get_message(timeout=PATIENCE)["data"], b"hello")
                self.assertEqual(client.blpop(["nothing"], timeout=0.1), None)
                self.assertIn("me", str(client.client_getname()))  # a text or bytes, by the version of redis-py

    def test_asyncio(self) -> None:
        """
        The client for asyncio, with many calls at once.
        """
        host, port = self.place

        async def calls() -> list[Any]:
            async with redisAsyncio.Redis(host=host, port=int(port), max_connections=300) as client:
                await asyncio.gather(*(client.set(f"k{number}", number) for number in range(200)))
                async with client.pipeline(transaction=True) as pipeline:
                    pipeline.get("k1")
                    pipeline.get("k2")
                    self.assertEqual(await pipeline.execute(), [b"1", b"2"])
                return await asyncio.gather(*(client.get(f"k{number}") for number in range(200)))

        self.assertEqual(asyncio.run(calls()), [b"%d" % number for number in range(200)])
