# -*- test-case-name: tests.real.test_fuzz -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The differential fuzzer, for the C{TXCONNPOOL_FUZZ_SECONDS} of the environment (a few if it does not say), from the seed
C{TXCONNPOOL_FUZZ_SEED} (another one each time); and tests of the fuzzer itself.
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

#: The memcached that L{DIFFERENCES} are about.
VERSION = "1.6.18"


class FuzzTests(SynchronousTestCase):
    """
    Two memcacheds, one of them behind proxies.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start everything.
        """
        with Memcached() as server:
            version = server.stats()["version"]
        if version != VERSION:
            raise SkipTest(f"the differences are about memcached {VERSION}, this is {version}")
        self.fuzzer = Fuzzer().__enter__()
        self.addCleanup(self.fuzzer.__exit__)

    def test_same(self) -> None:
        """
        Whatever is sent, a client reads the same through the proxy as without it.
        """
        log.msg(f"fuzzing for {SECONDS:g} s with seed {SEED}")
        found = self.fuzzer.run(SECONDS, SEED)
        self.assertEqual([str(mismatch) for mismatch in found], [], f"seed {SEED}: {''.join(map(str, found))}")
        self.assertGreater(self.fuzzer.cases, SECONDS)

    def test_differences(self) -> None:
        """
        Each difference of the list is one: an example of it is answered in another way, and would be found.
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
        A mismatch is found, made small, and described with what repeats it.
        """
        self.fuzzer.differences = tuple(each for each in DIFFERENCES if each.name != "swallowed")
        (mismatch,) = self.fuzzer.run(30.0, 1)
        self.assertLess(len(mismatch.sent), 100)
        self.assertIn(f"seed {mismatch.case.seed}", str(mismatch))
        self.assertIsNotNone(self.fuzzer.ask(mismatch.case))


class AuthorTests(SynchronousTestCase):
    """
    What the fuzzer sends.
    """

    def test_seed(self) -> None:
        """
        A seed gives the same stream each time, another one another.
        """
        streams = [b"".join(Author(seed).stream()) for seed in ("1/1", "1/1", "1/2")]
        self.assertEqual(streams[0], streams[1])
        self.assertNotEqual(streams[0], streams[2])

    def test_pieces(self) -> None:
        """
        The pieces of a stream are all of it.
        """
        for seed in range(50):
            author = Author(seed)
            stream = b"".join(author.stream())
            self.assertEqual(b"".join(author.pieces(stream)), stream)

    def test_requests(self) -> None:
        """
        So are its requests.
        """
        for seed in range(50):
            stream = b"".join(Author(seed).stream())
            self.assertEqual(b"".join(request.data for request in requestsOf(stream)), stream)
