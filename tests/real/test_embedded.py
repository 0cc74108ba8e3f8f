# -*- test-case-name: tests.real.test_embedded -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that C{memory:} and a real memcached give the same replies to the same requests.
"""

from __future__ import annotations

import itertools
import random
import re
import socket
import time

from twisted.internet.endpoints import connectProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import AccumulatingProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import Memcached, connect, missing
from tests.real.streams import NUMBERS
from tests.wire.memcache.safestrto import safeStrtol, safeStrtoul, safeStrtoull
from txconnpool.memcache.memory import MemoryEndpoint

MARK = b"MN\r\n"

#: Values in replies that may differ between servers: cas numbers, seconds (which may have advanced), class and size of
#: an item.
OWN = re.compile(
    rb"(?<=VALUE )(?P<value>\S+ \d+ \d+ )(?P<gets>\d+)(?=\r)|(?<= c)(?P<meta>\d+)(?=[ \r])|(?<=cas=)(?P<me>\d+)"
    rb"|(?<= t)(?P<left>\d+)(?=[ \r])|exp=-?\d+|la=\d+|cls=\d+ size=\d+"
)


class Side:
    """
    One of the two servers. In requests, C{<-1>} stands for the newest of the C{cas} numbers in its replies so far,
    C{<-2>} for the one before that. In replies, these numbers are replaced by their positions in this sequence.
    """

    def __init__(self) -> None:
        self._shown = [b"0"] * 4

    def ask(self, request: bytes) -> bytes:
        """
        @return: the reply: the bytes before the reply to a C{mn} that is sent after the request.
        """
        request = re.sub(rb"<(-\d)>", lambda match: self._shown[int(match[1])], request)
        return OWN.sub(self._rename, self.exchange(request + b"mn\r\n")).removesuffix(MARK)

    def exchange(self, request: bytes) -> bytes:
        """
        Send bytes, and read until the reply to C{mn}.
        """
        raise NotImplementedError

    def _rename(self, match: re.Match[bytes]) -> bytes:
        if match["left"]:
            left = int(match["left"])
            return b"%d" % round(left, -2 if left < 2000 else -4)
        number = match["gets"] or match["meta"] or match["me"]
        if number is None:
            return b"?"
        if number not in self._shown:
            self._shown.append(number)
        return (match["value"] or b"") + b"%d" % self._shown.index(number)


class Real(Side):
    """
    A connection to memcached.
    """

    def __init__(self, client: socket.socket) -> None:
        super().__init__()
        self._client = client

    def exchange(self, request: bytes) -> bytes:
        """
        Send bytes, and read until the reply to C{mn}.
        """
        self._client.sendall(request)
        reply = b""
        while not reply.endswith(MARK):
            data = self._client.recv(1 << 20)
            if not data:
                raise AssertionError(f"closed after {reply!r}")
            reply += data
        return reply


class Embedded(Side):
    """
    A connection to C{memory:}.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clock = Clock()
        self._clock.advance(time.time())
        self._protocol = AccumulatingProtocol()
        connectProtocol(MemoryEndpoint(self._clock), self._protocol)
        self._clock.advance(0)

    def exchange(self, request: bytes) -> bytes:
        """
        Send bytes, and read until the reply to C{mn}.
        """
        transport = self._protocol.transport
        assert transport is not None
        transport.write(request)
        self._clock.advance(0)
        reply, self._protocol.data = self._protocol.data, b""
        return reply


class SideBySideTests(SynchronousTestCase):
    """
    Tests that both give the same reply to each request.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start a memcached, and connect to both.
        """
        # With background threads memcached sometimes copies an item that it could change in place.
        memcached = Memcached("-t", "1", "-o", "no_lru_maintainer,no_lru_crawler").start()
        self.addCleanup(memcached.stop)
        self.addCleanup(memcached.kill)  # memcached takes up to a second to end after SIGTERM
        client = connect(memcached.address)
        self.addCleanup(client.close)
        self.real, self.embedded = Real(client), Embedded()

    def same(self, *requests: bytes) -> None:
        """
        Send requests to both, one after another, and compare the replies.
        """
        for request in requests:
            self.assertEqual(self.embedded.ask(request), self.real.ask(request), request[:200])

    def test_storage(self) -> None:
        """
        Every storage command gives the same reply and leaves the same item, whether the item existed before or not.
        """
        for verb in (b"set", b"add", b"replace", b"append", b"prepend"):
            for key in (b"there", b"absent"):
                self.same(
                    b"flush_all\r\n",
                    b"set there 5 0 3\r\nold\r\n",
                    b"%s %s 4294967295 0 3\r\nnew\r\n" % (verb, key),
                    b"get there absent\r\n",
                    b"%s %s 7 0 3 noreply\r\nyet\r\n" % (verb, key),
                    b"get there absent\r\n",
                )

    def test_checkAndSet(self) -> None:
        """
        C{cas} replaces the item that was read, and no other.
        """
        self.same(
            b"cas k 0 0 1 1\r\na\r\n",
            b"set k 1 0 1\r\na\r\n",
            b"gets k k absent\r\n",
            b"cas k 2 0 1 <-1>\r\nb\r\n",
            b"cas k 3 0 1 <-1>\r\nc\r\n",
            b"gats 0 k\r\n",
            b"cas k 3 0 1 <-1> noreply\r\nd\r\n",
            b"cas k 3 0 1 0\r\ne\r\n",
            b"gets k\r\n",
        )

    def test_numbers(self) -> None:
        """
        C{incr} and C{decr} agree on valid numbers, on overflow, and on the resulting value.
        """
        texts = (
            b"10",
            b"9",
            b" 10",
            b"+10",
            b"-10",
            b"5 ab",
            b"5ab",
            b"",
            b"ab",
            b"007",
            b"0",
            b"5\0ab",
            b"0" * 30 + b"5",
        )
        bounds = (b"18446744073709551615", b"18446744073709551616", b"99999999999999999999", b"1" * 21)
        for value in texts + bounds:
            for verb in (b"incr", b"decr"):
                self.same(b"set n 3 0 %d\r\n%s\r\n" % (len(value), value))
                for delta in (b"1", b"0", b"100", b"18446744073709551615"):
                    self.same(b"%s n %s\r\n" % (verb, delta), b"get n\r\n")
        self.same(b"incr absent 1\r\n", b"decr absent 1\r\n", b"incr n 1 noreply\r\n", b"get n\r\n")

    def test_texts(self) -> None:
        """
        Each text of a number has the same meaning in each request, or is rejected by both.
        """
        lines = (
            *(
                b"touch k %b",
                b"gat %b k",
                b"incr n %b",
                b"decr n %b",
                b"verbosity %b",
                b"mg k T%b v",
                b"mg z N%b v",
            ),
            *(b"mg k R%b", b"md k C%b", b"md k I T%b", b"ma n D%b v", b"ma n T%b", b"ma n C%b", b"ma z N0 J%b v"),
        )
        blocks = (
            (safeStrtol, b"set k 0 %b 1", b"ms k 1 T%b", b"append k 0 %b 1"),
            (safeStrtoul, b"set k %b 0 1", b"ms k 1 F%b"),
            (safeStrtoull, b"cas k 0 0 1 %b", b"ms k 1 C%b"),
        )
        for number in NUMBERS:
            if number == b"1":
                continue  # what expires after one second may do so before it is read
            requests = [line + b"\r\n" for line in lines]
            for reader, *heads in blocks:
                # 1.6.18 interprets the data block that follows a rejected line as commands.
                requests += [head + b"\r\nx\r\n" for head in heads if reader(number) is not None]
            for request in requests:
                self.same(b"set k 7 0 5\r\nfirst\r\nset n 0 0 2\r\n10\r\ndelete z\r\n")
                self.same(request.replace(b"%b", number), b"get k n\r\n", b"mg k t f\r\nmg z t v\r\nmg n t\r\n")
        for delay in (b"4294967295", b"-1", b"+0", b"\t-5\tx", b"x", b"9223372036854775808"):
            self.same(b"set k 0 0 1\r\nx\r\n", b"flush_all " + delay + b"\r\n", b"get k\r\n")
        for length in (b"+5", b"05", b"\t5\tx", b"4294967301", b"-4294967291"):
            self.same(b"set k 0 0 " + length + b"\r\nvalue\r\n", b"get k\r\n")
            self.same(b"ms k " + length + b"\r\nVALUE\r\n", b"get k\r\n")

    def test_expiry(self) -> None:
        """
        An item with a date in the past or a negative time to live expires immediately, others do not.
        """
        for exptime in (0, -1, 1000, int(time.time()) - 100, int(time.time()) + 1000, 2592000, 2592001):
            self.same(b"set k 0 %d 1\r\na\r\n" % exptime, b"get k\r\n", b"add k 0 0 1\r\nb\r\n", b"get k\r\n")
            self.same(b"touch k %d\r\n" % exptime, b"get k\r\n", b"set k 0 0 1\r\na\r\n")
            self.same(b"gat %d k absent\r\n" % exptime, b"get k\r\n", b"touch k 0\r\n")
            self.same(b"ms k 1 T%d\r\nc\r\n" % exptime, b"mg k v\r\n")

    def test_others(self) -> None:
        """
        Deleting, flushing and all other commands.
        """
        for request in (b"delete k", b"delete k 0", b"flush_all", b"flush_all 0", b"flush_all -1", b"flush_all 100"):
            self.same(b"set k 0 0 1\r\na\r\n", request + b"\r\n", b"get k\r\n", request + b" noreply\r\n")
        self.same(b"verbosity 1\r\n", b"verbosity 1 noreply\r\n", b"stats reset\r\n", b"stats what\r\n", b"what\r\n")

    def test_tooLarge(self) -> None:
        """
        A value over the limit is rejected and the old item is deleted, even with C{noreply}. An item that would grow
        over the limit is not changed.
        """
        large = b"x" * ((1 << 20) + 1) + b"\r\n"
        for request in (b"set k 0 0 1048577\r\n", b"set k 0 0 1048577 noreply\r\n", b"ms k 1048577\r\n"):
            self.same(b"set k 0 0 1\r\na\r\n", request + large, b"get k\r\n")
        self.same(b"set k 0 0 500\r\n" + b"x" * 500 + b"\r\n")
        self.same(b"append k 0 0 1048500\r\n" + b"x" * 1048500 + b"\r\n", b"get k\r\n")

    def test_metaGetAndSet(self) -> None:
        """
        Flags are returned in the order of the request, and keys in base64 if the request has them so. The flag C{q}
        suppresses the same replies.
        """
        self.same(
            b"mg k v k O1\r\n",
            b"mg k v k O1 q\r\n",
            b"ms k 2 c k O1 T100 F5\r\nab\r\n",
            b"me k\r\n",
            b"mg k O12 c k v t f s l h P1 L2\r\n",
            b"mg k h u\r\n",
            b"mg k h t T200\r\n",
            b"mg k T-1 v\r\n",
            b"mg k v\r\n",
            b"ms YWJj 2 b k c\r\nab\r\n",
            b"mg YWJj b k v\r\n",
            b"mg abc k v\r\n",
            b"me YWJj b\r\n",
            b"mg eHl6 b k O3\r\n",
            b"ms plain 0\r\n\r\n",
            b"mg cGxhaW4= b k v\r\n",
            b"ms k 1 q\r\na\r\n",
            b"ms k 1 C1 q O5\r\na\r\n",
            b"ms k 1 S1 M\r\na\r\n",
            b"ms k 1 E1\r\na\r\n",
            b"mg k E1\r\n",
            b"md k x\r\n",
            b"me absent\r\n",
        )

    def test_metaModes(self) -> None:
        """
        Every mode of C{ms}, with a right, a wrong and no C{cas}.
        """
        for mode in b"EAPRS":
            for flag in (b"", b" C<-1>", b" C5000000", b" C0", b" C1 I", b" C5000000 I"):
                self.same(
                    b"ms k 1 c F3 T100\r\na\r\n",
                    b"ms k 1 c k F4 M%c%s\r\nb\r\n" % (mode, flag),
                    b"mg k c v f t\r\n",
                    b"ms absent 1 c F4 M%c%s\r\nb\r\n" % (mode, flag),
                    b"flush_all\r\n",
                )

    def test_metaStale(self) -> None:
        """
        One client wins the right to store a stale item again, and the others see that the item is stale.
        """
        self.same(
            b"ms k 1 c\r\na\r\n",
            b"md k I T100 k O1\r\n",
            b"mg k v c t\r\n",
            b"mg k v c t\r\n",
            b"ms k 1 C<-2> I c\r\nb\r\n",
            b"mg k v c t\r\n",
            b"ms k 1\r\nc\r\n",
            b"mg k v t\r\n",
            b"mg vivid N100 v c t k\r\n",
            b"mg vivid N100 v c t k\r\n",
            b"mg vivid R50\r\n",
            b"ms vivid 1 T100\r\na\r\n",
            b"mg vivid R50 t\r\n",
            b"mg vivid R200 t\r\n",
            b"mg vivid R200 t\r\n",
            b"mg vivid T100 R0\r\n",
            b"md vivid C1 k O1\r\n",
            b"md vivid q\r\n",
            b"md vivid q k O1\r\n",
        )

    def test_metaArithmetic(self) -> None:
        """
        C{ma} counts like C{incr} and C{decr}, and creates missing items on request.
        """
        self.same(
            b"ma n\r\n",
            b"ma n q k O1\r\n",
            b"ma n N100 J7 v t c k O1\r\n",
            b"ma n v D10\r\n",
            b"ma n MD D3 v t T200\r\n",
            b"ma n T100 t\r\n",
            b"ma n M- D30 q\r\n",
            b"ma n v c\r\n",
            b"get n\r\n",
            b"ma n C1 k O3\r\n",
            b"ma n C0 MI v\r\n",
            b"ma n M+ D18446744073709551615 v\r\n",
            b"ms n 1\r\na\r\n",
            b"ma n\r\n",
            b"ma n q\r\n",
            b"ma n M?\r\n",
        )

    def test_random(self) -> None:
        """
        Many random requests have the same replies, and lead to the same statistics.
        """
        lot = random.Random(11211)
        for _ in range(1500):
            self.same(drawn(lot))
        names = rb"(?:get|touch|delete|incr|decr|cas)_(?:hits|misses|badval)|cmd_\w+|(?:total|curr)_items"
        statistics = re.compile(rb"STAT (%s) (\d+)" % names).findall
        embedded, real = (dict(statistics(side.exchange(b"stats\r\nmn\r\n"))) for side in (self.embedded, self.real))
        self.assertEqual(embedded, {name: real[name] for name in embedded})
        self.assertGreater(len(embedded), 15)

    def test_randomPipelines(self) -> None:
        """
        Requests that arrive together are executed one after another.
        """
        lot = random.Random(11211)
        for _ in range(200):
            # While a reply with an item is being sent, incr copies the item instead of changing it, and does not pad
            # the copy with spaces.
            requests = (request for request in iter(lambda: drawn(lot), None) if not COUNTING.match(request))
            self.same(b"".join(itertools.islice(requests, lot.randrange(1, 30))))


COUNTING = re.compile(rb"incr|decr|ma ")


def drawn(lot: random.Random) -> bytes:
    """
    @return: a random request.
    """
    key = b"key%d" % lot.randrange(8)
    value = lot.choice((b"%d" % lot.randrange(2000), b"text", b"", b"99 ", b"x" * lot.randrange(3000)))
    noreply = lot.choice((b"", b"", b" noreply"))
    # Times that do not pass while the test runs, however slow the machine is.
    exptime = lot.choice((0, 0, 10000, 100000, -1))
    flags = [b"k", b"O%d" % lot.randrange(100), lot.choice((b"q", b"k"))]
    shown = [b"v", b"t", b"f", b"s", b"c", b"h", b"T100000", b"R50000", b"u"]
    cas = lot.choice((b"<-1>", b"<-2>", b"<-3>"))
    match lot.randrange(14):
        case 0 | 1 | 2:
            verb = lot.choice((b"set", b"set", b"add", b"replace", b"append", b"prepend"))
            return b"%s %s %d %d %d%s\r\n%s\r\n" % (verb, key, lot.randrange(99), exptime, len(value), noreply, value)
        case 3:
            return b"cas %s 0 0 %d %s%s\r\n%s\r\n" % (key, len(value), cas, noreply, value)
        case 4 | 5:
            return lot.choice((b"get %s", b"gets %s", b"get a %s b", b"gets %s key1 key2", b"me %s")) % key + b"\r\n"
        case 6:
            return lot.choice((b"gat", b"gats")) + b" %d %s\r\n" % (exptime, key)
        case 7:
            return lot.choice((b"incr", b"decr")) + b" %s %d%s\r\n" % (key, lot.randrange(3000), noreply)
        case 8:
            return lot.choice((b"delete %s%s\r\n", b"touch %s 10000%s\r\n")) % (key, noreply)
        case 9 | 10:
            chosen = lot.sample(shown, 4) + lot.choice(([], [b"N10000"]))
            return b" ".join((b"mg", key, *dict.fromkeys(flags), *chosen)) + b"\r\n"
        case 11:
            chosen = lot.sample(
                (b"c", b"T10000", b"F5", b"C" + cas, b"I", b"M" + lot.choice((b"E", b"A", b"P", b"R"))), 3
            )
            line = b" ".join((b"ms", key, b"%d" % len(value), *dict.fromkeys(flags), *chosen))
            return line + b"\r\n" + value + b"\r\n"
        case 12:
            chosen = lot.sample((b"v", b"t", b"c", b"D5", b"MD", b"T10000", b"C" + cas), 3)
            return b" ".join((b"ma", key, *dict.fromkeys(flags), *chosen)) + b"\r\n"
        case _:
            chosen = lot.sample((b"I", b"T10000", b"C" + cas), 1)
            return b" ".join((b"md", key, *dict.fromkeys(flags), *chosen)) + b"\r\n"
