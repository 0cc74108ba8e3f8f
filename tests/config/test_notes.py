# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.notes}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.notes import notesOf, spreadOf
from txconnpool.config.settings import PoolSettings, Settings

SERVERS = ("tcp:a:1", "tcp:b:1", "tcp:c:1")
SEVERAL = PoolSettings(name="several", upstream=SERVERS, listen=("tcp:1",))
NAMED = PoolSettings(name="named", upstream=SERVERS, distribution="gomemcache", listen=("tcp:2",))
EQUAL = PoolSettings(name="equal", upstream=SERVERS, distribution="round-robin", listen=("tcp:3",))
SETTINGS = Settings(pools=(PoolSettings(), SEVERAL, NAMED, EQUAL))


class NotesTests(SynchronousTestCase):
    """
    Tests for L{notesOf} and L{spreadOf}.
    """

    def test_notes(self) -> None:
        """
        Each pool with several servers has a line, which shows what the distribution stands for.
        """
        several, named, equal = notesOf(SETTINGS)
        self.assertRegex(
            several, "^pool 'several': the distribution of 3 servers is by default ketama: a ring of 160 points .* MD5"
        )
        self.assertRegex(named, "^pool 'named': the distribution of 3 servers is gomemcache: ")
        self.assertRegex(equal, "^pool 'equal': the distribution of 3 servers is round-robin: equal servers")
        self.assertEqual(notesOf(Settings()), [])

    def test_sources(self) -> None:
        """
        Where servers are looked up, their number and the shares of their keys are not known.
        """
        settings = Settings(pools=(PoolSettings(upstream=("dns:a:1",)),))
        (note,) = notesOf(settings)
        self.assertRegex(note, "^pool 'default': the distribution of the servers that are found is by default ketama: ")
        self.assertEqual(list(spreadOf(settings)), [])

    def test_sentinels(self) -> None:
        """
        The line says which roles the servers have that sentinels name.
        """
        pool = PoolSettings(protocol="redis", upstream=("sentinel:cache@10.0.0.8",))
        texts = {}
        for readFrom in ("primary", "prefer-replica", "replica"):
            (texts[readFrom],) = notesOf(Settings(pools=(replace(pool, readFrom=readFrom),)))
        self.assertEqual(texts["primary"], "pool 'default': the sentinels name the master, which gets all requests")
        begin = "pool 'default': the sentinels name the master, and its replicas, which get the requests that read"
        self.assertEqual((texts["replica"], texts["prefer-replica"]), (begin, f"{begin} while one of them is up"))

    def test_spread(self) -> None:
        """
        Each pool that distributes keys has a line with the shares of two servers, the one with the fewest keys and the
        one with the most, or with the share of each if all have the same.
        """
        several, named = spreadOf(SETTINGS)
        self.assertEqual(
            several,
            "pool 'several': 31.4% of the keys belong to tcp:c:1, which has the fewest, and 35.0% to tcp:a:1, which "
            "has the most",
        )
        self.assertEqual(named, "pool 'named': each of the 3 servers has 33.3% of the keys")
