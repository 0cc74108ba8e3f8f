# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.requestreader} and L{txconnpool.wire.redis.special}.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.real.redisfuzz import stream
from tests.wire.redis.clients import Reading, request
from tests.wire.redis.test_several import Places
from txconnpool.wire import ANSWER
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import encode


class RequestReaderTests(SynchronousTestCase):
    """
    Tests for requests of clients without state.
    """

    @covers("R16")
    def test_forwarded(self) -> None:
        """
        Requests are forwarded whatever the case of their name; inline ones as arrays.
        """
        reading = Reading()
        self.assertEqual(reading.ask("GET k", "get k", "gEt k"), ["> GET k", "> get k", "> gEt k"])
        self.assertEqual(reading.feed(b"set k 'a b'\r\nget k\n"), ["> set k a b", "> get k"])

    @covers("R10", "R13")
    def test_errors(self) -> None:
        """
        Unknown commands and wrong numbers of words are answered as Redis does.
        """
        reading = Reading()
        for text, reply in (
            ("FOO a b", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b'"),
            ("foo", "-ERR unknown command 'foo', with args beginning with:"),
            ("get", "-ERR wrong number of arguments for 'get' command"),
            ("GET a b", "-ERR wrong number of arguments for 'get' command"),
            ("client setname", "-ERR wrong number of arguments for 'client|setname' command"),
            ("config foo", "-ERR unknown subcommand 'foo'. Try CONFIG HELP."),
            ("config", "-ERR wrong number of arguments for 'config' command"),
            ("cluster info", "-ERR This instance has cluster support disabled"),
            ("readonly", "-ERR This instance has cluster support disabled"),
            ("shutdown", "-ERR unknown command 'shutdown': the proxy does not forward it"),
            ("config get x", "-ERR unknown command 'config|get': the proxy does not forward it"),
            ("exec", "-ERR EXEC without MULTI"),
            ("discard", "-ERR DISCARD without MULTI"),
            ("select x", "-ERR value is not an integer or out of range"),
            ("select 16", "-ERR DB index is out of range"),
            ("hello 4", "-NOPROTO unsupported protocol version"),
            ("hello x", "-ERR Protocol version is not an integer or out of range"),
            ("hello 3 foo", "-ERR Syntax error in HELLO option 'foo'"),
            ("auth x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure "
             "your configuration is correct?"),
            ("auth a b c", "-ERR syntax error"),
            ("auth a b", "-WRONGPASS invalid username-password pair or user is disabled."),
        ):  # fmt: skip
            self.assertEqual(reading.ask(text), [f"< {reply}"])
        long = "x" * 200
        self.assertEqual(reading.ask(long), [f"< -ERR unknown command '{long[:128]}', with args beginning with:"])

    def test_answered(self) -> None:
        """
        Requests about the client itself are answered.
        """
        reading = Reading()
        for text, reply in (
            ("ping", "+PONG"), ("PING x", "$1 x"), ("echo hi", "$2 hi"), ("client getname", "$-1"),
            ("client setname me", "+OK"), ("client getname", "$2 me"), ("client id", ":1"), ("unwatch", "+OK"),
            ("select 0", "+OK"), ("auth default x", "+OK"), ("client getredir", ":-1"),
            ("unsubscribe", "*3 $11 unsubscribe $-1 :0"), ("punsubscribe a b",
             "*3 $12 punsubscribe $1 a :0 *3 $12 punsubscribe $1 b :0"),
        ):  # fmt: skip
            self.assertEqual(reading.ask(text), [f"< {reply}"])
        self.assertEqual(reading.feed(b"*0\r\n\r\n*-1\r\n"), ["< "] * 3)  # these have no answer

    def test_mode(self) -> None:
        """
        C{INFO} says whether there is a cluster for clients, as C{HELLO} and C{CLUSTER} do, whatever the server is.
        """
        dialect = Redis()
        reading = Reading(dialect)
        lines = b"# Server\r\nredis_mode:%b\r\nredis_mode_x:0\r\nserver_mode:%b\r\n# Cluster\r\ncluster_enabled:%b\r\n"
        standalone, cluster = (lines % each for each in ((b"standalone",) * 2 + (b"0",), (b"cluster",) * 2 + (b"1",)))
        for places, said in ((None, standalone), ((), cluster), (None, standalone)):
            dialect.announce(places)
            for text in (standalone, cluster):
                reading.report = b"$%d\r\n%b\r\n" % (len(text), text)
                for asked in ("info server", "INFO Cluster", "info server cpu"):
                    expected = " ".join(said.decode().split("\r\n")).strip()
                    self.assertEqual(reading.ask(asked)[1], f"< ${len(said)} {expected}")
                self.assertIn(said.split(b"\r\n")[-2].decode(), reading.ask("info")[1])

    def test_info(self) -> None:
        """
        C{INFO} without a section, or with all of them, has one more, which can also be had alone. Other sections are
        the server's alone.
        """
        reading = Reading()
        for text, sent, reply in (
            ("INFO", "REPORT INFO", "$35 # Server  # Proxy proxy_hits:7"),
            ("info All", "REPORT INFO all", "$35 # Server  # Proxy proxy_hits:7"),
            ("info everything", "REPORT INFO everything", "$35 # Server  # Proxy proxy_hits:7"),
            ("info default", "REPORT INFO default", "$35 # Server  # Proxy proxy_hits:7"),
            ("INFO server PROXY", "REPORT INFO server", "$35 # Server  # Proxy proxy_hits:7"),
            ("INFO PROXY", "REPORT", "$23 # Proxy proxy_hits:7"),
        ):
            self.assertEqual(reading.ask(text), [sent, f"< {reply}"])
        self.assertEqual(reading.ask("info clients cpu"), ["> info clients cpu"])
        reading.report = b"$0\r\n\r\n"
        self.assertEqual(reading.ask("info x proxy")[1], "< $23 # Proxy proxy_hits:7")
        reading.report = b"-NOPERM no\r\n"
        self.assertEqual(reading.ask("info")[1], "< -NOPERM no")
        reading.ask("hello 3")
        self.assertEqual(reading.ask("info proxy")[1], "< =27 txt:# Proxy proxy_hits:7")
        reading.ask("client reply off")
        self.assertEqual(reading.ask("info"), ["< "])
        self.assertEqual(Reading(Redis(denied=frozenset((b"info",)))).ask("info proxy"),
                         ["< -ERR unknown command 'info': this proxy does not allow it"])  # fmt: skip
        reading = Reading()
        self.assertEqual(reading.ask("multi", "info")[2:], [">> info"])

    @covers("R7")
    def test_echo(self) -> None:
        """
        Any bytes may be in an argument, line ends too.
        """
        data = b"\r\n*1\r\n$4\r\nQUIT\r\n\0"
        what, end, count, payload = Redis().requestReader().read(encode([b"ECHO", data]) + b"x", 0, 9)
        self.assertEqual((what, count, payload), (ANSWER, 0, b"$%d\r\n%b\r\n" % (len(data), data)))
        self.assertEqual(end, len(encode([b"ECHO", data])))

    @covers("R41")
    def test_noCluster(self) -> None:
        """
        A pool is no cluster for its clients.
        """
        for text in ("CLUSTER SLOTS", "cluster info", "CLUSTER SHARDS", "CLUSTER NODES"):
            self.assertEqual(Reading().ask(text), ["< -ERR This instance has cluster support disabled"])

    def test_quit(self) -> None:
        """
        Nothing is read after C{QUIT}, also with arguments.
        """
        self.assertEqual(Reading().ask("quit now", "get k"), ["CLOSE +OK"])

    def test_forged(self) -> None:
        """
        A client that speaks HTTP is closed without a byte.
        """
        self.assertEqual(Reading().feed(b"POST / HTTP/1.1\r\nHost: x\r\n"), ["CLOSE "])
        self.assertEqual(Reading().ask("host: x"), ["CLOSE "])

    def test_broken(self) -> None:
        """
        Bytes that are no request end the client, with the server's error.
        """
        reading = Reading()
        self.assertEqual(
            reading.feed(request("get k") + b"*1\r\n$01\r\n" + request("get k")),
            ["> get k", "CLOSE -ERR Protocol error: invalid bulk length"],
        )
        self.assertEqual(Reading().feed(b'get "k\r\n'), ["CLOSE -ERR Protocol error: unbalanced quotes in request"])
        self.assertEqual(Reading().feed(b"x" * 70000), ["CLOSE -ERR Protocol error: too big inline request"])

    def test_size(self) -> None:
        """
        Arguments larger than C{max-item-size} are refused. The limit may change.
        """
        dialect = Redis(1024)
        reading = Reading(dialect)
        self.assertEqual(len(reading.feed(b"*2\r\n$3\r\nget\r\n$1024\r\n" + bytes(1024) + b"\r\n")), 1)
        dialect.limit(1023, frozenset(), None)
        data = b"*2\r\n$3\r\nget\r\n$1024\r\n" + bytes(1024) + b"\r\n"
        self.assertEqual(reading.feed(data), ["CLOSE -ERR Protocol error: invalid bulk length"])

    def test_denied(self) -> None:
        """
        Commands that are not allowed are refused, subcommands too.
        """
        reading = Reading(Redis(1 << 20, frozenset((b"@delete", b"script|load", b"watch")), None))
        for text in ("del k", "SCRIPT LOAD x", "flushall", "watch k"):
            (reply,) = reading.ask(text)
            self.assertIn("this proxy does not allow it", reply)
        self.assertEqual(reading.ask("get k"), ["> get k"])
        reading = Reading(Redis(1 << 20, frozenset(), frozenset((b"@read",))))
        self.assertEqual(reading.ask("get k", "ping"), ["> get k", "< +PONG"])
        self.assertIn("does not allow", reading.ask("set k v")[0])

    @settings(max_examples=30)
    @given(st.integers(0, 1 << 32))
    def test_splits(self, seed: int) -> None:
        """
        However the bytes of a client are split, the same is done with them.
        """
        chance = random.Random(seed)
        data = stream(chance, 6)
        places = range(len(data)) if len(data) < 200 else sorted(chance.sample(range(len(data)), 50))
        pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
        self.assertEqual(Reading().feed(*pieces), Reading().feed(data))

    @given(st.binary(max_size=80), st.integers(0, 80))
    def test_anything(self, data: bytes, place: int) -> None:
        """
        Any bytes can be read, in any pieces.
        """
        self.assertEqual(Reading().feed(data[:place], data[place:]), Reading().feed(data))


class StateTests(SynchronousTestCase):
    """
    Tests for requests that change the state of the client.
    """

    @covers("R15", "R17", "R18")
    def test_transaction(self) -> None:
        """
        A transaction has a connection of its own.
        """
        reading = Reading()
        self.assertEqual(
            reading.ask("set a 1", "multi", "get a", "ping", "exec", "get a"),
            ["> set a 1", "PIN", ">> multi", ">> get a", ">> ping", ">> exec", "> get a"],
        )
        self.assertEqual(reading.ask("multi", "discard", "get a"), ["PIN", ">> multi", ">> discard", "> get a"])

    def test_brokenTransaction(self) -> None:
        """
        After an error that the proxy answers, C{EXEC} fails, and the server discards the transaction.
        """
        reading = Reading()
        reading.ask("multi")
        self.assertEqual(reading.ask("foo")[0][:24], "< -ERR unknown command '")
        self.assertEqual(
            reading.ask("exec", "get a"),
            [">> DISCARD (silent)", "< -EXECABORT Transaction discarded because of previous errors.", "> get a"],
        )
        reading.ask("multi")
        self.assertEqual(
            reading.ask("exec now"),
            [
                ">> DISCARD (silent)",
                "< -EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command",
            ],
        )
        for text in ("multi", "watch k"):  # these do not spoil it
            reading.ask("multi")
            self.assertIn("-ERR", reading.ask(text)[0])
            self.assertEqual(reading.ask("exec"), [">> exec"])

    def test_notInTransaction(self) -> None:
        """
        A transaction cannot change what the proxy knows of its client.
        """
        for text in ("select 1", "hello 3", "subscribe c", "client setname x", "auth a b"):
            reading = Reading()
            reading.ask("multi")
            self.assertIn("cannot make it a part of a transaction", reading.ask(text)[0])

    @covers("R9", "R14")
    def test_watch(self) -> None:
        """
        A client that watches keys has a connection of its own, until the end of its transaction or C{UNWATCH}.
        """
        reading = Reading()
        self.assertEqual(
            reading.ask("watch k", "get k", "multi", "exec", "get k"),
            ["PIN", ">> watch k", ">> get k", ">> multi", ">> exec", "> get k"],
        )
        self.assertEqual(reading.ask("watch k", "unwatch", "get k"), ["PIN", ">> watch k", ">> unwatch", "> get k"])

    def test_blocking(self) -> None:
        """
        A command that may block has a connection of its own.
        """
        reading = Reading()
        for text in ("blpop k 0", "BLMOVE a b left right 1", "xread block 0 streams k $", "blmpop 1 1 k left"):
            self.assertEqual(reading.ask(text, "get k"), ["PIN", f">> {text}", "> get k"])
        for text in ("xread count 1 streams block 0", "XREADGROUP GROUP block c STREAMS k >"):
            self.assertEqual(reading.ask(text), [f"> {text}"])

    def test_subscriber(self) -> None:
        """
        A subscriber needs no connection of its own. In RESP2 it may use few commands until it has no channels.
        """
        reading = Reading()
        confirmations = "< *3 $9 subscribe $1 a :1 *3 $9 subscribe $1 b :2"
        self.assertEqual(reading.ask("subscribe a b"), ["+ a b", confirmations])
        self.assertIn("only (P|S)SUBSCRIBE", reading.ask("get k")[0])
        self.assertEqual(reading.ask("ping x"), ["< *2 $4 pong $1 x"])
        self.assertEqual(
            reading.ask("psubscribe p*", "punsubscribe p*", "unsubscribe a"),
            ["+ p*", "< *3 $10 psubscribe $2 p* :3", "- p*", "< *3 $12 punsubscribe $2 p* :2",
             "- a", "< *3 $11 unsubscribe $1 a :1"],
        )  # fmt: skip
        self.assertEqual(reading.ask("punsubscribe"), ["< *3 $12 punsubscribe $-1 :1"])
        self.assertEqual(reading.ask("unsubscribe", "get k"), ["- b", "< *3 $11 unsubscribe $1 b :0", "> get k"])

    def test_subscriber3(self) -> None:
        """
        In RESP3 a subscriber may use all commands, but keeps the version of the protocol.
        """
        reading = Reading()
        reading.ask("hello 3")
        self.assertEqual(reading.ask("subscribe a", "get k"), ["+ a", "< >3 $9 subscribe $1 a :1", "> get k"])
        self.assertEqual(reading.ask("select 1", "ping"), ["FLAVOUR (3, 1) +OK", "< +PONG"])
        (refused,) = reading.ask("hello 2")
        self.assertIn("cannot change the version of the protocol of a subscriber", refused)
        self.assertEqual(len(reading.ask("hello 3")), 1)
        self.assertEqual(reading.ask("unsubscribe a", "hello 2")[2][:14], "FLAVOUR (2, 1)")

    def test_resetSubscriber(self) -> None:
        """
        C{RESET} ends all subscriptions before anything else, and reports none of them.
        """
        reading = Reading()
        reading.ask("subscribe a", "psubscribe b")
        self.assertEqual(reading.ask("reset", "get k"), ["- a b", "FLAVOUR (2, 0) +RESET", "> get k"])
        reading.ask("hello 3", "subscribe a", "client reply skip")
        self.assertEqual(reading.ask("reset"), ["- a", "FLAVOUR (2, 0) "])

    def test_subscriberOfCluster(self) -> None:
        """
        Subscribers of sharded channels of a cluster share connections too. One request is for channels of one slot,
        also if the client has a connection of its own.
        """
        dialect = Redis()
        dialect.cluster(True)
        reading = Reading(dialect)
        confirmed = "< *3 $10 ssubscribe $1 a :1 *3 $10 ssubscribe $4 {a}b :2"
        self.assertEqual(reading.ask("ssubscribe a {a}b"), ["+ a {a}b", confirmed])
        self.assertFalse(reading.reader.pinned)
        self.assertIn("only (P|S)SUBSCRIBE", reading.ask("get k")[0])
        self.assertEqual(reading.ask("ssubscribe b"), ["+ b", "< *3 $10 ssubscribe $1 b :3"])
        reading.reader.place(Places())
        for name in ("ssubscribe", "sunsubscribe"):
            self.assertIn("CROSSSLOT", reading.ask(f"{name} a b")[0])
        self.assertEqual(reading.ask("psubscribe p*"), ["+ p*", "< *3 $10 psubscribe $2 p* :1"])
        self.assertEqual(reading.ask("sunsubscribe")[:1], ["- a {a}b b"])
        self.assertEqual(reading.ask("sunsubscribe x"), ["< *3 $12 sunsubscribe $1 x :0"])
        self.assertEqual(reading.ask("punsubscribe", "get k")[::2], ["- p*", "> get k"])
        reading.ask("watch k", "ssubscribe a", "subscribe b")
        self.assertEqual(reading.ask("reset", "get k"), ["- a b", "FLAVOUR (2, 0) +RESET", "> get k"])

    def test_manyChannels(self) -> None:
        """
        The channels of a client are limited.
        """
        reading = Reading()
        reading.ask("subscribe " + " ".join(map(str, range(9999))))
        self.assertEqual(len(reading.ask("subscribe x")), 2)
        self.assertIn("more than 10000 channels", reading.ask("psubscribe y")[0])

    def test_flavours(self) -> None:
        """
        The version of the protocol and the database select other connections.
        """
        reading = Reading()
        (event,) = reading.ask("hello 3 setname me")
        self.assertEqual(event[:14], "FLAVOUR (3, 0)")
        self.assertIn("$5 proto :3", event)
        self.assertEqual(reading.ask("client getname", "select 5", "select 5"),
                         ["< $2 me", "FLAVOUR (3, 5) +OK", "< +OK"])  # fmt: skip
        self.assertEqual(reading.ask("reset", "client getname"), ["FLAVOUR (2, 0) +RESET", "< $-1"])

    def test_flavourOfOwn(self) -> None:
        """
        A client that watches keys can change the database and the version of its connection.
        """
        reading = Reading()
        reading.ask("watch k")
        self.assertEqual(reading.ask("select 5"), [">> SELECT 5 (silent)", "< +OK"])
        self.assertEqual(reading.reader.flavour, (2, 5))
        self.assertEqual(reading.ask("hello 3")[0], ">> HELLO 3 (silent)")

    def test_silence(self) -> None:
        """
        A client can turn replies off: requests are forwarded, and have replies that are dropped.
        """
        reading = Reading()
        self.assertEqual(
            reading.ask("client reply off", "get k", "ping", "foo", "client reply on", "get k"),
            ["< ", "> get k (silent)", "< ", "< ", "< +OK", "> get k"],
        )
        self.assertEqual(reading.ask("client reply maybe"), ["< -ERR syntax error"])

    def test_skip(self) -> None:
        """
        A client can skip the next reply. Any number of skips is one.
        """
        reading = Reading()
        skip = "client reply skip"
        self.assertEqual(reading.ask(skip, "get a", "get b"), ["> get a (silent)", "> get b"])
        self.assertEqual(reading.ask(*[skip] * 3000, "ping", "ping"), ["< "] * 3000 + ["< +PONG"])
        self.assertEqual(reading.ask(skip, "client reply on"), ["< +OK"])
        self.assertEqual(reading.ask(skip, "reset"), ["FLAVOUR (2, 0) "])
        self.assertEqual(reading.ask(skip, "client reply off", "get a"), ["< ", "> get a (silent)"])

    def test_tracking(self) -> None:
        """
        A client that is sent invalidations has a connection of its own until it turns them off.
        """
        reading = Reading()
        self.assertEqual(
            reading.ask("client tracking on", "get k", "client tracking off", "get k"),
            ["PIN", ">> client tracking on", ">> get k", ">> client tracking off", "> get k"],
        )


class LoginTests(SynchronousTestCase):
    """
    Tests for clients that have to log in.
    """

    def reading(self) -> Reading:
        """
        @return: a client of a proxy with one user.
        """
        return Reading(check=lambda login: login == (b"default", b"secret") or login == (b"ann", b"secret"))

    def test_required(self) -> None:
        """
        Other requests are refused, after unknown ones and wrong numbers of words.
        """
        reading = self.reading()
        self.assertEqual(reading.ask("get k", "ping"), ["< -NOAUTH Authentication required."] * 2)
        self.assertIn("unknown command", reading.ask("foo")[0])
        self.assertIn("wrong number", reading.ask("get")[0])
        self.assertIn("-NOAUTH HELLO must be called", reading.ask("hello 3")[0])
        self.assertEqual(reading.ask("reset"), ["< +RESET"])
        self.assertEqual(reading.feed(b"*11\r\n"), ["CLOSE -ERR Protocol error: unauthenticated multibulk length"])

    def test_login(self) -> None:
        """
        C{AUTH} and C{HELLO} log in.
        """
        wrong = "< -WRONGPASS invalid username-password pair or user is disabled."
        reading = self.reading()
        self.assertEqual(reading.ask("auth x", "auth ann x", "hello 3 auth x secret"), [wrong] * 3)
        self.assertEqual(reading.ask("auth secret", "get k"), ["ADMIT +OK", "> get k"])
        self.assertEqual(reading.ask("auth x", "auth ann secret"), [wrong, "< +OK"])
        reading = self.reading()
        self.assertEqual(reading.ask("hello 3 auth ann secret")[0][:8], "ADMIT %7")
        self.assertEqual(reading.reader.flavour, (3, 0))

    def test_reset(self) -> None:
        """
        C{RESET} logs out.
        """
        reading = self.reading()
        reading.ask("auth secret")
        self.assertEqual(reading.ask("reset", "get k"), ["FLAVOUR (2, 0) +RESET", "< -NOAUTH Authentication required."])
        self.assertEqual(reading.ask("auth secret", "get k"), ["< +OK", "> get k"])
