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

from tests.real.differences import DIFFERENCES
from tests.real.fuzz import Case, Fuzzer
from tests.real.servers import Memcached, missing
from tests.real.streams import Author, requestsOf

SECONDS = float(os.environ.get("TXCONNPOOL_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("TXCONNPOOL_FUZZ_SEED", "0")) or random.randrange(1, 10**6)

#: The version of memcached that L{DIFFERENCES} describes.
VERSION = "1.6.18"


class FuzzTests(SynchronousTestCase):
    """
    Tests with two memcacheds, of which one is behind proxies.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start the servers and the proxies.
        """
        with Memcached() as server:
            version = server.stats()["version"]
        if version != VERSION:
            raise SkipTest(f"the differences are about memcached {VERSION}, this is {version}")
        self.fuzzer = Fuzzer().__enter__()
        self.addCleanup(self.fuzzer.__exit__)

    def test_same(self) -> None:
        """
        Replies through the proxy are equal to those of memcached.
        """
        log.msg(f"fuzzing for {SECONDS:g} s with seed {SEED}")
        found = self.fuzzer.run(SECONDS, SEED)
        self.assertEqual([str(mismatch) for mismatch in found], [], f"seed {SEED}: {''.join(map(str, found))}")
        self.assertGreater(self.fuzzer.cases, SECONDS)

    def test_differences(self) -> None:
        """
        Each intended difference exists: the fuzzer finds a mismatch for its example if the difference is removed from
        the list.
        """
        for difference in DIFFERENCES:
            case = Case("example", [difference.example], whole=True)
            self.fuzzer.differences = DIFFERENCES
            self.assertIsNone(self.fuzzer.ask(case), difference.name)
            self.assertIn(difference.name, self.fuzzer.met)
            self.fuzzer.differences = ()
            self.assertIsNotNone(self.fuzzer.ask(case), difference.name)

    def test_found(self) -> None:
        """
        A mismatch is found, reduced, and described with the seed that repeats it.
        """
        self.fuzzer.differences = tuple(each for each in DIFFERENCES if each.name != "swallowed")
        (mismatch,) = self.fuzzer.run(30.0, 1)
        self.assertLess(len(mismatch.sent), 100)
        self.assertIn(f"seed {mismatch.case.seed}", str(mismatch))
        self.assertIsNotNone(self.fuzzer.ask(mismatch.case))


class AuthorTests(SynchronousTestCase):
    """
    Tests for L{Author}.
    """

    def test_seed(self) -> None:
        """
        The same seed generates the same stream, and another seed another one.
        """
        streams = [b"".join(Author(seed).stream()) for seed in ("1/1", "1/1", "1/2")]
        self.assertEqual(streams[0], streams[1])
        self.assertNotEqual(streams[0], streams[2])

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
