# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.several}, and for readers of clients whose keys are on several servers.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.redis.clients import Reading, request
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.several import CURSOR_MAX, DIVIDED, SPREADS, elements, scanned

CROSS_SLOT = "< -CROSSSLOT Keys in request don't hash to the same slot"


class Places:
    """
    Three servers: the last byte of a key names its server.

    @ivar own: the server of the connection of the client's own, or C{None}.
    """

    servers = 3
    own: int | None = None

    def together(self, keys: list[bytes]) -> bool:
        """
        @return: whether all keys are on one server.
        """
        found = {key[-1] for key in keys}
        return len(found | ({self.own} if self.own is not None else set())) == 1


class ElementsTests(SynchronousTestCase):
    """
    Tests for L{elements}.
    """

    def test_elements(self) -> None:
        """
        The elements of arrays, sets and maps are found, nested ones too.
        """
        each = [b"$1\r\na\r\n", b"$-1\r\n", b"*2\r\n:1\r\n*0\r\n", b"_\r\n"]
        self.assertEqual(elements(b"*4\r\n" + b"".join(each)), each)
        self.assertEqual(elements(b"%2\r\n" + b"".join(each)), each)
        self.assertEqual(elements(b"*0\r\n"), [])
        self.assertEqual(elements(b"*-1\r\n"), [])


class DividedTests(SynchronousTestCase):
    """
    Tests for L{DIVIDED}.
    """

    def joined(self, text: str, parts: dict[str, bytes], hidden: bool = False) -> bytes:
        """
        @param parts: the reply to each part, by its keys.

        @return: one reply.
        """
        data = request(text)
        command = DIVIDED[text.split(" ", 1)[0].lower(), hidden]
        values = []
        for keys, reply in parts.items():
            found = command.values(keys.encode().split(), reply)
            assert found is not None
            values.append(found)
        its = [keys.encode().split() for keys in parts]
        order = [next(number for number, some in enumerate(its) if key in some) for key in command.keys(data)]
        return command.gather(order, values, False)

    def test_values(self) -> None:
        """
        Values are in the order of the request, and a key may be there twice.
        """
        parts = {"a c": b"*2\r\n$1\r\nA\r\n$-1\r\n", "b b": b"*2\r\n$1\r\nB\r\n$1\r\nB\r\n"}
        joined = b"*4\r\n$1\r\nB\r\n$1\r\nA\r\n$-1\r\n$1\r\nB\r\n"
        self.assertEqual(self.joined("MGET b a c b", parts), joined)
        self.assertEqual(self.joined("MGET b a c b", parts, True), b"")

    def test_numbers(self) -> None:
        """
        Numbers of keys are added.
        """
        for name in ("DEL", "UNLINK", "EXISTS", "TOUCH"):
            self.assertEqual(self.joined(f"{name} a b a", {"a a": b":2\r\n", "b": b":0\r\n"}), b":2\r\n")

    def test_set(self) -> None:
        """
        Each server gets its keys, each once, with the last value of each.
        """
        command = DIVIDED["mset", False]
        data = request("MSET a 1 b 2 a 3")
        self.assertEqual(command.keys(data), [b"a", b"b"])
        self.assertEqual(command.subset(data, [b"a", b"a"]), request("MSET a 3"))
        self.assertEqual(command.subsets(data, [[b"a"], [b"b"]]), [command.subset(data, [key]) for key in (b"a", b"b")])
        self.assertEqual(self.joined("MSET a 1 b 2", {"a": b"+OK\r\n", "b": b"+OK\r\n"}), b"+OK\r\n")

    def test_merged(self) -> None:
        """
        Requests for values can be merged.
        """
        command = DIVIDED["mget", False]
        requests = [request("MGET " + " ".join("abcdefg")), request("MGET h"), request("MGET j k")]
        indexes = {each.encode(): 0 for each in "abcdefghjk"}
        _, shares = command.shares(requests, indexes, 99)
        self.assertEqual(shares, [(0, request("MGET " + " ".join("abcdefghjk")), 10)])
        self.assertEqual([name for (name, _), each in DIVIDED.items() if each.merges], ["mget", "mget"])

    def test_errors(self) -> None:
        """
        An error is none of the replies that are joined. The client sees it as it is.
        """
        error = b"-OOM command not allowed\r\n"
        for (_, hidden), command in DIVIDED.items():
            self.assertIsNone(command.values([b"a"], error))
            self.assertEqual(command.visible(error), b"" if hidden else error)
            self.assertFalse(command.partial)


class SpreadTests(SynchronousTestCase):
    """
    Tests for L{SPREADS}.
    """

    def test_joined(self) -> None:
        """
        One reply is made of those of all servers.
        """
        numsub = b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n"
        for name, replies, joined in (
            ("flushall", [b"+OK\r\n", b"+OK\r\n"], b"+OK\r\n"),
            ("dbsize", [b":3\r\n", b":4\r\n"], b":7\r\n"),
            ("keys", [b"*1\r\n$1\r\na\r\n", b"*0\r\n", b"*1\r\n$1\r\nb\r\n"], b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
            ("script|exists", [b"*2\r\n:1\r\n:1\r\n", b"*2\r\n:0\r\n:1\r\n"], b"*2\r\n:0\r\n:1\r\n"),
            ("randomkey", [b"$-1\r\n", b"$1\r\na\r\n"], b"$1\r\na\r\n"),
            ("randomkey", [b"_\r\n", b"_\r\n"], b"_\r\n"),
            ("pubsub|numsub", [numsub, numsub], numsub.replace(b":1", b":2")),
            ("pubsub|numsub", [b"*0\r\n", b"*0\r\n"], b"*0\r\n"),
        ):
            self.assertEqual(SPREADS[name, False].join(replies), joined, name)

    def scan(self, cursor: int, reply: int, servers: int = 3) -> tuple[bytes, int, int]:
        """
        @param cursor: the cursor of the client.
        @param reply: the cursor in the reply of the server.

        @return: the request, the index of its server, and the cursor in the reply to the client.
        """
        frame = scanned([b"scan", b"%d" % cursor, b"COUNT", b"7"], 9, servers, False)
        assert frame is not None
        command, sent, index = frame[3]
        data = command.join([b"*2\r\n$%d\r\n%d\r\n*0\r\n" % (len(str(reply)), reply)])
        return sent, index, int(elements(data)[0].split(b"\r\n")[1])

    def test_scan(self) -> None:
        """
        The low bits of a cursor are the index of the server. After the last server it is 0.
        """
        self.assertEqual(self.scan(0, 5), (request("SCAN 0 COUNT 7"), 0, 5 << 10))
        self.assertEqual(self.scan(5 << 10, 0), (request("SCAN 5 COUNT 7"), 0, 1))
        self.assertEqual(self.scan(9 << 10 | 1, 3), (request("SCAN 9 COUNT 7"), 1, 3 << 10 | 1))
        self.assertEqual(self.scan(2, 0), (request("SCAN 0 COUNT 7"), 2, 0))

    def test_badCursor(self) -> None:
        """
        A cursor that no reply can have is invalid, and one that is too large is not passed on.
        """
        for cursor in (b"3", b"x", b"-1", b"", b"%d" % (1 << 63)):
            self.assertIsNone(scanned([b"scan", cursor], 9, 3, False), cursor)
        frame = scanned([b"scan", b"0"], 9, 3, False)
        assert frame is not None
        number = b"%d" % CURSOR_MAX
        reply = frame[3][0].join([b"*2\r\n$%d\r\n%b\r\n*0\r\n" % (len(number), number)])
        self.assertEqual(reply[:5], b"-ERR ")


class KeyTests(SynchronousTestCase):
    """
    Tests for L{RedisCommand.key<txconnpool.wire.redis.commands.RedisCommand.key>}.
    """

    def test_key(self) -> None:
        """
        The first key decides, or the channel; a request without one has none.
        """
        for text, key in (
            ("GET k", b"k"),
            ("SET key value", b"key"),
            ("OBJECT|ENCODING k", b"k"),
            ("BITOP AND to from", b"to"),
            ("EVAL code 1 k argument", b"k"),
            ("EVAL code 0 argument", None),
            ("XREAD STREAMS s1 s2 0 0", b"s1"),
            ("PUBLISH channel message", b"channel"),
            ("SUBSCRIBE a b", b"a"),
            ("PSUBSCRIBE a* b*", b"a*"),
            ("BLPOP k 1", b"k"),
            ("TIME", None),
        ):
            name = text.split(" ", 1)[0].lower()
            data = request(text.replace("|", " "))
            self.assertEqual(BY_NAME[name].key(b"before" + data + b"after", 6), key, text)
        self.assertEqual(BY_NAME["get"].key(b"get  'a b'\r\n", 0), b"a b")


class ReaderTests(SynchronousTestCase):
    """
    Tests for L{RequestReader<txconnpool.wire.redis.requestreader.RequestReader>} with several servers.
    """

    def setUp(self) -> None:
        """
        Make a reader.
        """
        self.reading = Reading()
        self.places = Places()
        self.reading.reader.place(self.places)

    def test_keys(self) -> None:
        """
        Requests for one server are forwarded. Others are divided, or get an error.
        """
        ask = self.reading.ask
        self.assertEqual(ask("GET k1", "MGET a1 b1", "RENAME a1 b1"), ["> GET k1", "> MGET a1 b1", "> RENAME a1 b1"])
        self.assertEqual(ask("MSET a1 x a2"), ["< -ERR wrong number of arguments for 'mset' command"])
        self.assertEqual(ask("SORT a1 BY nosort STORE a2", "SORT a1 store b1"), [CROSS_SLOT, "> SORT a1 store b1"])
        self.assertEqual(ask("MSETNX a1 x a2 y", "RENAME a1 a2"), [CROSS_SLOT, CROSS_SLOT])
        self.assertEqual(ask("BLPOP a1 a2 0", "WATCH a1 a2"), [CROSS_SLOT, CROSS_SLOT])
        what, _, count, _ = self.reading.reader.read(request("DEL a1 a2"), 0, 9)
        self.assertEqual((what, count), (DIVIDED["del", False], 1))

    def test_everywhere(self) -> None:
        """
        Some requests are for every server. Those that would be but cannot be are refused.
        """
        ask = self.reading.ask
        self.assertEqual(ask("FLUSHALL", "script load x"), ["> *: FLUSHALL", "> *: script load x"])
        self.assertEqual(ask("SCAN 2050 COUNT 3"), ["> 2: SCAN 2 COUNT 3"])
        self.assertEqual(ask("SCAN x"), ["< -ERR invalid cursor"])
        (refused,) = ask("CLIENT TRACKING ON")
        self.assertIn("unknown command 'client|tracking': the keys are on several servers", refused)

    def test_channels(self) -> None:
        """
        A message is sent to the server of its channel, and a client subscribes on the servers of its channels.
        """
        ask = self.reading.ask
        self.assertEqual(ask("PUBLISH a1 m"), ["> PUBLISH a1 m"])
        self.assertEqual(ask("SUBSCRIBE a1 a2")[0], "+ a1 a2")
        self.assertEqual(ask("PSUBSCRIBE a*")[0], "+ a*")

    def test_publishInTransaction(self) -> None:
        """
        In a transaction, the channel of a message has to be one of its server.
        """
        self.reading.ask("MULTI", "SET k1 x")
        self.places.own = ord("1")
        self.assertEqual(self.reading.ask("PUBLISH a1 m"), [">> PUBLISH a1 m"])
        self.assertIn("CROSSSLOT", self.reading.ask("PUBLISH a2 m")[0])

    def test_transaction(self) -> None:
        """
        C{MULTI} is sent before the first command of the transaction, to the server of its key.
        """
        self.assertEqual(self.reading.ask("MULTI", "SET k1 x"), ["< +OK", "PIN", ">> MULTI (first)", ">> SET k1 x"])
        self.places.own = ord("1")
        self.assertEqual(self.reading.ask("GET a1", "EXEC"), [">> GET a1", ">> EXEC"])
        self.assertFalse(self.reading.reader.pinned)
        self.assertEqual(self.reading.ask("GET a2"), ["> GET a2"])

    def test_otherServer(self) -> None:
        """
        A key of another server fails the transaction, and so does a request for every server.
        """
        for wrong in ("GET a2", "DBSIZE", "SCAN 0", "DEL a1 a2"):
            self.places.own = None
            self.reading.ask("MULTI", "SET k1 x")
            self.places.own = ord("1")
            events = self.reading.ask(wrong, "EXEC")
            self.assertEqual(events[1], ">> DISCARD (silent)", wrong)
            self.assertIn("EXECABORT", events[2])

    def test_unsent(self) -> None:
        """
        A transaction of which no server knows is ended here.
        """
        self.assertEqual(self.reading.ask("MULTI", "EXEC"), ["< +OK", "< *0"])
        self.assertEqual(self.reading.ask("MULTI", "DISCARD"), ["< +OK", "< +OK"])
        self.assertIn("EXECABORT", self.reading.ask("MULTI", "RENAME a1 a2", "EXEC")[2])
        self.assertIn("EXECABORT", self.reading.ask("MULTI", "NOTHING", "EXEC")[2])
        self.assertEqual(self.reading.ask("MULTI", "RESET")[1], "FLAVOUR (2, 0) +RESET")
        self.assertEqual(self.reading.ask("GET k1"), ["> GET k1"])

    def test_refused(self) -> None:
        """
        A transaction fails if its client gets no connection of its own.
        """
        self.reading.ask("MULTI")
        self.reading.reader.refused()
        self.assertIn("EXECABORT", self.reading.ask("EXEC")[0])

    def test_watching(self) -> None:
        """
        All keys of a client that watches one are checked, also those of plain requests.
        """
        self.assertEqual(self.reading.ask("WATCH a1"), ["PIN", ">> WATCH a1"])
        self.places.own = ord("1")
        self.assertEqual(self.reading.ask("GET a1", "GET a2"), [">> GET a1", CROSS_SLOT])
        self.assertEqual(self.reading.ask("MULTI", "GET a1"), [">> MULTI", ">> GET a1"])
