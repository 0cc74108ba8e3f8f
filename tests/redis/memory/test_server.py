# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.memory.server} and the scripts of an embedded Redis.
"""

from __future__ import annotations

from tests.redis.memory.cases import MemoryCase
from txconnpool.wire.redis.framing import encode


class ConnectionTests(MemoryCase):
    """
    Tests for connections.
    """

    def test_framing(self) -> None:
        """
        Requests arrive in any parts, also as lines. Bytes that are no request end the connection.
        """
        data = encode([b"set", b"a", b"1"]) + b'*0\r\n\r\nset b "2 3"\r\n' + encode([b"mget", b"a", b"b"])
        for at in range(len(data)):
            self.client.send(data[at : at + 1])
        self.assertEqual(self.client.received(), [b"OK", b"OK", [b"1", b"2 3"]])
        self.client.send(b"*1\r\nx\r\n")
        self.assertEqual(self.client.received(), ["ERR Protocol error: expected '$', got 'x'"])
        self.assertTrue(self.client.transport.disconnecting)

    def test_errors(self) -> None:
        """
        Requests that no server executes have the errors of Redis; commands that are missing here say so.
        """
        for text, error in (
            ("foo a b", "ERR unknown command 'foo', with args beginning with: 'a' 'b' "),
            ("client foo", "ERR unknown subcommand 'foo'. Try CLIENT HELP."),
            ("get", "ERR wrong number of arguments for 'get' command"),
            ("xadd s * a 1", "ERR unknown command 'xadd': the fake Redis does not have it"),
            ("select 16", "ERR DB index is out of range"),
            ("select x", "ERR value is not an integer or out of range"),
            ("hello 4", "NOPROTO unsupported protocol version"),
            ("hello 3 foo", "ERR Syntax error in HELLO option 'foo'"),
            ("ping a b", "ERR wrong number of arguments for 'ping' command"),
            ("exec", "ERR EXEC without MULTI"),
            ("discard", "ERR DISCARD without MULTI"),
            ("auth a b c", "ERR syntax error"),
        ):
            self.assertEqual(self.ask(text), error)

    def test_state(self) -> None:
        """
        A connection has a version, a database and a name, until it is reset.
        """
        self.assertEqual(self.ask("hello 3 SETNAME me")[b"proto"], 3)
        self.assertEqual([self.ask("client getname"), self.ask("client id"), self.ask("select 1")], [b"me", 1, b"OK"])
        self.ask("set a 1")
        self.assertEqual([self.ask("reset"), self.ask("client getname"), self.ask("get a")], [b"RESET", None, None])
        self.assertEqual([self.ask("client setname x"), self.ask("client getname")], [b"OK", b"x"])
        self.assertEqual([self.ask("ping"), self.ask("ping x"), self.ask("quit")], [b"PONG", b"x", b"OK"])
        self.assertTrue(self.client.transport.disconnecting)

    def test_login(self) -> None:
        """
        With passwords, clients have to log in.
        """
        self.assertIn("without any password configured", self.ask("auth secret"))
        self.data.passwords.update(default="secret", ann="other")
        client = self.connect()
        self.assertEqual(client.ask("get a"), "NOAUTH Authentication required.")
        self.assertIn("NOAUTH HELLO must be called", client.ask("hello 3"))
        self.assertIn("WRONGPASS", client.ask("auth wrong"))
        self.assertIn("WRONGPASS", client.ask("auth bob secret"))
        self.assertEqual([client.ask("auth secret"), client.ask("get a")], [b"OK", None])
        self.assertEqual(self.connect().ask("auth ann other"), b"OK")
        self.assertEqual(self.connect().ask("hello 3 AUTH ann other")[b"proto"], 3)


class TransactionTests(MemoryCase):
    """
    Tests for transactions.
    """

    def test_executed(self) -> None:
        """
        The commands of a transaction are executed by C{EXEC}, and blocking ones do not wait.
        """
        self.assertEqual([self.ask("multi"), self.ask("set a 1"), self.ask("lpush a 1")], [b"OK", *[b"QUEUED"] * 2])
        self.assertIsNone(self.connect().ask("get a"))
        self.ask("blpop l 0")
        self.ask("ping")
        self.assertEqual(self.ask("multi"), "ERR MULTI calls can not be nested")
        self.assertEqual(self.ask("watch a"), "ERR WATCH inside MULTI is not allowed")
        wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
        self.assertEqual(self.ask("exec"), [b"OK", wrong, None, b"PONG"])

    def test_rejected(self) -> None:
        """
        A transaction with a command that does not exist is not executed, nor is one that is discarded.
        """
        for end, reply in (("exec", "EXECABORT Transaction discarded because of previous errors."), ("discard", b"OK")):
            self.ask("multi")
            self.ask("set a 1")
            self.ask("get")
            self.assertEqual(self.ask(end), reply)
        self.assertEqual([self.ask("get a"), self.ask("multi"), self.ask("exec")], [None, b"OK", []])

    def test_watched(self) -> None:
        """
        A transaction is executed only if its keys were not changed, and did not expire.
        """
        self.data.items[b"a"] = b"0"
        for change in ("set a 1", "del a", "expire a 0", "append a x", "flushall", "rename b a"):
            self.ask("mset a 1 b 2")
            self.ask("watch a")
            self.connect().ask(change)
            self.ask("multi")
            self.ask("set a 2")
            self.assertIsNone(self.ask("exec"), change)
        for harmless in ("set b 1", "get a", "touch a"):
            self.ask("set a 1")
            self.ask("watch a")
            self.connect().ask(harmless)
            self.ask("multi")
            self.assertEqual(self.ask("exec"), [], harmless)
        self.ask("watch a")
        self.ask("set a 2")
        self.assertEqual([self.ask("unwatch"), self.ask("multi"), self.ask("exec")], [b"OK", b"OK", []])
        self.ask("set a 1 PX 5")
        self.ask("watch a")
        self.clock.advance(1)
        self.ask("multi")
        self.assertIsNone(self.ask("exec"))


class WaitingTests(MemoryCase):
    """
    Tests for commands that wait.
    """

    def test_order(self) -> None:
        """
        Who waits for longest gets the first element. Requests after a blocking one wait too.
        """
        first, second = self.connect(), self.connect()
        self.assertEqual([first.ask("blpop a b 0"), second.ask("brpop b 0"), first.ask("ping")], [[], [], []])
        self.assertEqual(self.ask("rpush b 1 2 3"), 3)
        self.assertEqual(first.received(), [[b"b", b"1"], b"PONG"])
        self.assertEqual(second.received(), [[b"b", b"3"]])
        self.assertEqual(self.ask("lrange b 0 -1"), [b"2"])

    def test_kinds(self) -> None:
        """
        All blocking commands wait for an element.
        """
        for request, change, reply in (
            ("blmove a b LEFT LEFT 0", "rpush a x", b"x"),
            ("brpoplpush a b 0", "rpush a x", b"x"),
            ("blmpop 0 2 none a LEFT COUNT 2", "rpush a x y", [b"a", [b"x", b"y"]]),
            ("bzpopmin a 0", "zadd a 1 x 2 y", [b"a", b"x", b"1"]),
            ("bzpopmax a 0", "zadd a 1 x 2 y", [b"a", b"y", b"2"]),
            ("bzmpop 0 1 a MAX", "zadd a 1 x 2 y", [b"a", [[b"y", b"2"]]]),
        ):
            client = self.connect()
            self.assertEqual(client.ask(request), [])
            self.ask("set a 1")  # of another type: it waits on
            self.ask("del a")
            self.ask(change)
            self.assertEqual(client.received(), [reply], request)
            self.ask("flushall")

    def test_timeout(self) -> None:
        """
        After its timeout, a client goes on with the next request. One that has left waits no longer.
        """
        client = self.connect()
        client.send(encode([b"blpop", b"a", b"5"]) + encode([b"ping"]))
        self.clock.advance(4.9)
        self.assertEqual(client.received(), [])
        self.clock.advance(0.1)
        self.assertEqual(client.received(), [None, b"PONG"])
        client.ask("blpop a 5")
        client.connection.connectionLost()
        self.assertEqual((self.data.blocked, self.clock.getDelayedCalls()), ([], []))
        self.ask("rpush a x")
        self.assertEqual(self.ask("llen a"), 1)


class SubscriptionTests(MemoryCase):
    """
    Tests for subscriptions.
    """

    def test_messages(self) -> None:
        """
        Subscribers get the messages of their channels and patterns.
        """
        client = self.connect()
        self.assertEqual(client.ask("subscribe a b"), [[b"subscribe", b"a", 1], [b"subscribe", b"b", 2]])
        self.assertEqual(client.ask("psubscribe p*"), [b"psubscribe", b"p*", 3])
        self.assertEqual([self.ask("publish a 1"), self.ask("publish pq 2"), self.ask("publish c 3")], [1, 1, 0])
        self.assertEqual(client.received(), [[b"message", b"a", b"1"], [b"pmessage", b"p*", b"pq", b"2"]])
        self.assertEqual(client.ask("ping"), [b"pong", b""])
        self.assertIn("Can't execute 'get'", client.ask("get a"))
        self.assertEqual(client.ask("unsubscribe"), [[b"unsubscribe", b"a", 2], [b"unsubscribe", b"b", 1]])
        self.assertEqual(client.ask("punsubscribe p*"), [b"punsubscribe", b"p*", 0])
        self.assertEqual(client.ask("unsubscribe"), [b"unsubscribe", None, 0])
        self.assertEqual([client.ask("get a"), self.ask("publish a 1")], [None, 0])

    def test_pushes(self) -> None:
        """
        In RESP3, messages are pushes, and the client may send other requests.
        """
        self.ask("hello 3")
        self.assertEqual(self.ask("subscribe a"), (b"subscribe", b"a", 1))
        self.assertEqual([self.ask("ping"), self.ask("publish a x")], [b"PONG", [(b"message", b"a", b"x"), 1]])


class ScriptTests(MemoryCase):
    """
    Tests for scripts.
    """

    def test_function(self) -> None:
        """
        A function stands for a script.
        """
        text = "add"
        self.data.addScript(text, lambda call, keys, args: [call("INCRBY", keys[0], args[0]), True, False, 1.9, "x"])
        sha = self.ask("script load add").decode()
        self.assertEqual(self.ask(f"evalsha {sha} 1 n 5"), [5, 1, None, 1, b"x"])
        self.assertEqual(self.ask("eval add 1 n 2"), [7, 1, None, 1, b"x"])
        self.assertEqual([self.ask(f"script exists {sha} x"), self.ask("script flush")], [[1, 0], b"OK"])
        self.assertEqual(self.ask(f"evalsha {sha} 1 n 5"), "NOSCRIPT No matching script. Please use EVAL.")

    def test_errors(self) -> None:
        """
        A script without a function, and one whose command fails, are errors.
        """
        self.assertIn("executes no Lua: call data.addScript", self.ask("eval foo 0"))
        self.data.addScript("wrong", lambda call, keys, args: call("LPUSH", "n", 1.5))
        self.data.items[b"n"] = b"1"
        self.assertIn("WRONGTYPE", self.ask("eval wrong 0"))
        self.data.addScript("missing", lambda call, keys, args: call("XADD", "n", "*", "a", 1))
        self.assertIn("cannot execute 'XADD'", self.ask("eval missing 0"))
        self.data.addScript("waits", lambda call, keys, args: call("BLPOP", "l", 0))
        self.assertIsNone(self.ask("eval waits 0"))
        self.assertIn("can't be negative", self.ask("eval wrong -1"))
        self.assertIn("can't be greater than", self.ask("eval wrong 1"))
