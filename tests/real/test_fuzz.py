# -*- test-case-name: tests.real.test_fuzz -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The differential fuzzer, for C{TXCONNPOOL_FUZZ_SECONDS} seconds (an environment variable; a few seconds by default),
with the seed C{TXCONNPOOL_FUZZ_SEED} (random by default), and tests of the fuzzer itself.
"""

from __future__ import annotations

import os
import random

from twisted.python import log
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.real.binarystreams import BinaryAuthor, withCas
from tests.real.differences import DIFFERENCES, NEWEST_DIFFERENCES, Difference
from tests.real.fuzz import Case, Fuzzer
from tests.real.servers import NEWEST, PATIENCE, Memcached, NewestMemcached, missing, shared
from tests.real.streams import NUMBERS, STORES, Author, requestsOf
from tests.wire.memcache.binary.packets import split

SECONDS = float(os.environ.get("TXCONNPOOL_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("TXCONNPOOL_FUZZ_SEED", "0")) or random.randrange(1, 10**6)

#: Why the tests with the newest memcached are skipped.
NO_NEWEST = None if NEWEST else "TXCONNPOOL_NEWEST_MEMCACHED does not name a memcached"

#: What is sent before and after a request with a number.
BEFORE = b"set k 7 0 5\r\nfirst\r\nset n 0 0 2\r\n10\r\ndelete z\r\n"
AFTER = b"mn\r\nget n\r\nmg k v t f s\r\nmg z v t\r\n"


class FuzzerTestCase(SynchronousTestCase):
    """
    A test case with two memcacheds, of which one is behind proxies.

    @cvar differences: the intended differences.
    @cvar version: the version of memcached that they are about.
    @cvar memcached: what starts a memcached.
    """

    skip = missing("memcached")
    differences: tuple[Difference, ...] = DIFFERENCES
    version = "1.6.18"
    memcached: type[Memcached] = Memcached

    def setUp(self) -> None:
        """
        Start the servers and the proxies, once for all tests of the class.
        """
        with self.memcached() as server:
            version = server.stats()["version"]
        if version != self.version:
            raise SkipTest(f"the differences are about memcached {self.version}, this is {version}")
        self.fuzzer = shared(self, lambda: Fuzzer(self.differences, self.memcached))
        self.fuzzer.reset(self.differences)


class FuzzTests(FuzzerTestCase):
    """
    Tests with random requests.
    """

    def test_same(self) -> None:
        """
        Replies through the proxy are equal to those of memcached.
        """
        log.msg(f"fuzzing for {SECONDS:g} s with seed {SEED}")
        found = self.fuzzer.run(SECONDS, SEED)
        self.assertEqual([str(mismatch) for mismatch in found], [], f"seed {SEED}: {''.join(map(str, found))}")
        self.assertGreater(self.fuzzer.cases, 0)

    def test_differences(self) -> None:
        """
        Each intended difference exists: the fuzzer finds a mismatch for its example if the difference is removed from
        the list.
        """
        for difference in self.differences:
            case = Case("example", [difference.example], whole=True)
            self.fuzzer.differences = self.differences
            self.assertIsNone(self.fuzzer.ask(case), difference.name)
            self.assertIn(difference.name, self.fuzzer.met)
            self.fuzzer.differences = ()
            self.assertIsNotNone(self.fuzzer.ask(case), difference.name)

    def test_found(self) -> None:
        """
        A mismatch is found, reduced, and described with the seed that repeats it.
        """
        self.fuzzer.differences = tuple(each for each in DIFFERENCES if each.name != "swallowed")
        (mismatch,) = self.fuzzer.run(2 * PATIENCE, 1)
        self.assertLess(len(mismatch.sent), 100)
        self.assertIn(f"seed {mismatch.case.seed}", str(mismatch))
        self.assertIsNotNone(self.fuzzer.ask(mismatch.case))


class NewestFuzzTests(FuzzTests):
    """
    The same tests with the newest memcached.
    """

    skip = NO_NEWEST
    differences = NEWEST_DIFFERENCES
    version = "1.6.45"
    memcached = NewestMemcached

    def test_found(self) -> None:
        """
        A mismatch is found, and described with the seed that repeats it.
        """
        self.fuzzer.differences = tuple(each for each in self.differences if each.name != "spaced")
        (mismatch,) = self.fuzzer.run(2 * PATIENCE, 1)
        self.assertIn(f"seed {mismatch.case.seed}", str(mismatch))

    def test_silent(self) -> None:
        """
        A C{delete} of the key C{noreply} has no reply, and is executed; that of the proxy has one.
        """
        for stream in (b"set noreply 0 0 1\r\nx\r\ndelete noreply\r\nget noreply\r\n", b"delete noreply\r\nmn\r\n"):
            self.assertIsNone(self.fuzzer.ask(Case("silent", [stream], whole=True)))

    def test_accepted(self) -> None:
        """
        What this version accepts is not refused here.
        """
        requests = (
            b"ms k 4 MSS\r\nabcd\r\nmg k v\r\n",
            b"ms a\0b 1\r\nx\r\nmg a\0b v k\r\nget a\0b\r\nset a\0b 0 0 1\r\ny\r\ngets k a\0b\r\n",
            b"ms k 1 c f h k l O1 q s t u v x P L T0 N0 R0\r\nx\r\nmg k v\r\n",
            b"delete k 5\r\nincr n 1 2 3\r\ntouch k 0 x\r\nflush_all 0 1 2\r\nverbosity 0 1 2 3\r\n",
            b"mg k M\r\nmd k MSS\r\nms n 1\r\n1\r\nma n M++ v\r\nme k b\r\n",
        )
        for stream in requests:
            self.assertIsNone(self.fuzzer.ask(Case("accepted", [stream], whole=True)))


#: Requests with one number, which is C{%b}. The data block of a storage command has five bytes.
NUMBERED = (
    *(b"%b k %%b 0 5\r\nvalue\r\n" % word for word in sorted(STORES - {b"cas"})),
    *(b"%b k 0 %%b 5\r\nvalue\r\n" % word for word in sorted(STORES - {b"cas"})),
    *(b"cas k %b 0 5 1\r\nvalue\r\n", b"cas k 0 %b 5 1\r\nvalue\r\n", b"cas k 0 0 5 %b\r\nvalue\r\n"),
    *(b"set k 0 %b 5 noreply\r\nvalue\r\n", b"cas k 0 0 5 %b noreply\r\nvalue\r\n"),
    *(b"gat %b k\r\n", b"gats %b z k\r\n", b"gat %b\r\n", b"touch k %b\r\n", b"touch k %b noreply\r\n"),
    *(b"incr n %b\r\n", b"decr n %b\r\n", b"incr n %b noreply\r\n", b"delete k %b\r\n"),
    *(b"flush_all %b\r\n", b"flush_all %b noreply\r\n", b"verbosity %b\r\n", b"verbosity %b noreply\r\n"),
    *(b"mg %b %b%%b v t\r\n" % (key, flag) for key in (b"k", b"z") for flag in (b"T", b"N", b"R", b"C")),
    *(b"ms k 5 %b%%b c\r\nvalue\r\n" % flag for flag in (b"T", b"F", b"C", b"N", b"D", b"J")),
    *(b"md k %b%%b\r\n" % flag for flag in (b"C", b"T", b"I T")),
    *(b"ma n %b%%b v t\r\n" % flag for flag in (b"D", b"T", b"C", b"MD D")),
    *(b"ma z %b%%b v t\r\n" % flag for flag in (b"N", b"N0 J")),
)

#: The same with the length of the data block.
MEASURED = (b"set k 0 0 %b\r\nvalue\r\n", b"cas k 0 0 %b 1\r\nvalue\r\n", b"ms k %b T0\r\nvalue\r\n")


class NumberTests(FuzzerTestCase):
    """
    Tests with each text of a number in each place of each command.
    """

    def assertSame(self, requests: list[bytes]) -> None:
        """
        Assert that the proxy gives memcached's replies to requests, and to requests before and after each of them.
        """
        for start in range(0, len(requests), 20):
            stream = [BEFORE + request + AFTER for request in requests[start : start + 20]]
            mismatch = self.fuzzer.ask(Case("numbers", stream, whole=True))
            self.assertIsNone(mismatch, f"{mismatch}")

    def test_numbers(self) -> None:
        """
        A number is accepted if memcached accepts it, and means what it means there.
        """
        numbers = (b"", *NUMBERS)
        for request in NUMBERED:
            # What expires after one second may do so before it is read.
            self.assertSame([request.replace(b"%b", number) for number in numbers if number != b"1"])

    def test_lengths(self) -> None:
        """
        The length of a data block too. Each is sent alone: a long data block takes the rest of the stream.
        """
        for request in MEASURED:
            for number in (*NUMBERS, b"", b"+5", b"4294967301"):
                self.assertSame([request.replace(b"%b", number)])


class AuthorTests(SynchronousTestCase):
    """
    Tests for L{Author} and L{BinaryAuthor}.
    """

    def test_seed(self) -> None:
        """
        The same seed generates the same stream, and another seed another one.
        """
        for author in (Author, BinaryAuthor):
            streams = [b"".join(author(seed).stream()) for seed in ("1/1", "1/1", "1/2")]
            self.assertEqual(streams[0], streams[1])
            self.assertNotEqual(streams[0], streams[2])

    def test_cas(self) -> None:
        """
        The cas numbers in a binary stream are close to the last one of the servers.
        """
        numbers: set[int] = set()
        for seed in range(50):
            packets, _ = split(withCas(b"".join(BinaryAuthor(seed).stream()[:-1]), 1000))
            numbers.update(packet.cas for packet in packets)
        self.assertEqual(numbers, {0, *range(1001, 1012)})

    def test_pieces(self) -> None:
        """
        The pieces of a stream, joined, are the stream.
        """
        for seed in range(50):
            author = Author(seed)
            stream = b"".join(author.stream())
            self.assertEqual(b"".join(author.pieces(stream)), stream)

    def test_requests(self) -> None:
        """
        The requests of a stream, joined, are the stream.
        """
        for seed in range(50):
            stream = b"".join(Author(seed).stream())
            self.assertEqual(b"".join(request.data for request in requestsOf(stream)), stream)
