# -*- test-case-name: tests.config.test_clusters -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the settings of a pool whose servers are a cluster.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.changes import comparison, serversChanged
from txconnpool.config.notes import notesOf
from txconnpool.config.servers import ServerLine
from txconnpool.config.settings import POOL_OPTIONS, ConfigError, PoolSettings, Settings
from txconnpool.wire.topology import Node

LINE = "cluster:10.0.0.1:6379,10.0.0.2:6379"


def pool(*upstream: str, **values: Any) -> PoolSettings:
    """
    @return: the settings of a pool.
    """
    return PoolSettings(**{"upstream": upstream or (LINE,), "protocol": "redis", **values})


class ClusterTests(SynchronousTestCase):
    """
    Tests for the setting C{upstream} with a cluster.
    """

    def assertFault(self, words: str, *upstream: str, **values: Any) -> None:
        """
        Assert that there is one fault, whose text has certain words.
        """
        [line] = str(self.assertRaises(ConfigError, pool, *upstream, **values)).splitlines()
        self.assertIn(words, line)

    def test_cluster(self) -> None:
        """
        The known servers are those of the line, and keys are not distributed.
        """
        settings = pool()
        assert settings.cluster is not None
        self.assertEqual(settings.cluster.seeds, (Node("10.0.0.1", 6379), Node("10.0.0.2", 6379)))
        self.assertEqual([each.endpoint for each in settings.servers], ["tcp:10.0.0.1:6379", "tcp:10.0.0.2:6379"])
        self.assertIsNone(settings.distributionByKey)
        self.assertIsNone(pool("tcp:10.0.0.1:6379").cluster)

    def test_wrong(self) -> None:
        """
        A wrong line, or what a cluster cannot have, is an error that says what would be right.
        """
        self.assertFault("expected cluster:HOST:PORT", "cluster:")
        self.assertFault("database 3: a cluster has database 0 only; expected 0", database=3)
        self.assertFault("protocol memcache has no clusters; expected redis", protocol="memcache")
        self.assertFault("expected one line cluster:", LINE, "tcp:10.0.0.3:6379")
        for values, name in (
            ({"distribution": "ketama"}, "distribution"),
            ({"hash": "crc16"}, "hash"),
            ({"hashTag": "{}"}, "hash-tag"),
            ({"hashStop": "|"}, "hash-stop"),
            ({"hashSkip": "x"}, "hash-skip"),
            ({"onFailure": "rehash"}, "on-failure"),
        ):
            self.assertFault(f"{name} has no meaning for a cluster", **values)

    def test_source(self) -> None:
        """
        The first nodes may be looked up. A reload says which were found.
        """
        source = "dns:redis.example:6379 resolver=127.0.0.1"
        settings = pool("cluster:dns:redis.example:6379 tls=yes resolver=127.0.0.1")
        assert settings.cluster is not None
        self.assertEqual((settings.sources, settings.cluster.seeds, settings.servers), ((source,), (), ()))
        known = replace(settings, found=((source, "tcp:10.0.0.1:6379 label=10.0.0.1"),))
        assert known.cluster is not None
        self.assertEqual((known.cluster.seeds, known.cluster.secure), ((Node("10.0.0.1", 6379),), True))
        self.assertEqual([each.endpoint for each in known.servers], ["tls:10.0.0.1:6379"])
        self.assertEqual(list(serversChanged(settings, known)), ["upstream + tls:10.0.0.1:6379"])
        self.assertEqual(known.distributionByKey, None)
        for line, words in (
            ("cluster:dns:redis.example", "expected dns:HOST:PORT"),
            ("cluster:dns:10.0.0.1:6379", "expected tcp:HOST:PORT for one server"),
            ("cluster:srv:redis.example:6379", "expected srv:NAME"),
            ("cluster:dns:a:1,b:2", "expected dns:HOST:PORT"),
        ):
            self.assertFault(words, line)

    def test_readFrom(self) -> None:
        """
        A cluster has replicas, and a master that sentinels name.
        """
        self.assertEqual(pool(readFrom="prefer-replica").readFrom, "prefer-replica")
        self.assertFault("read-from replica is for clusters and sentinels", "tcp:10.0.0.1:6379", readFrom="replica")
        settings = pool("sentinel:cache@10.0.0.8", readFrom="replica")
        line = settings.upstream[0]
        found = (line, "tcp:10.0.0.1:6379"), *((line, f"tcp:10.0.0.{each}:6379 label=replica") for each in (2, 3))
        known = replace(settings, found=found)
        self.assertEqual([server.label for server in known.servers], [None, "replica", "replica"])
        self.assertEqual((known.readsReplicas, known.distributionByKey), (True, None))
        self.assertFalse(replace(settings, readFrom="primary").readsReplicas)

    def test_files(self) -> None:
        """
        Paths are relative to the directory of the ini file. Others lines stay as they are.
        """
        kind: Any = next(each.kind for each in POOL_OPTIONS if each.attribute == "upstream")
        self.assertIsInstance(kind, ServerLine)
        self.assertEqual(kind.located("cluster:a:1  trustRoots=ca", "/etc"), "cluster:a:1 trustRoots=/etc/ca")
        self.assertEqual(kind.located("cluster:a:1  tls=yes", "/etc"), "cluster:a:1  tls=yes")
        for line in ("cluster:a:1", "cluster:dns:a:1", "cluster:srv:a"):
            self.assertRaises(ValueError, kind.checkFiles, f"{line} trustRoots=/nowhere")
        self.assertEqual(kind.located("sentinel:x@a  trustRoots=ca", "/etc"), "sentinel:x@a trustRoots=/etc/ca")
        self.assertEqual(kind.located("sentinel:x@a  tls=yes", "/etc"), "sentinel:x@a  tls=yes")

    def test_notes(self) -> None:
        """
        The log says who distributes the keys.
        """
        self.assertEqual(
            notesOf(Settings(pools=(pool(),))),
            ["pool 'default': the nodes of the cluster report which of them has which keys"],
        )

    def test_changes(self) -> None:
        """
        Other nodes in the line, and other words, are differences. Nothing is known of keys that move.
        """
        old = Settings(pools=(pool(),))
        for upstream, lines in (
            ("cluster:10.0.0.1:6379", ["pool default: upstream - tcp:10.0.0.2:6379"]),
            (f"{LINE} map=a:1>b:2", [f"pool default: upstream {LINE} -> {LINE} map=a:1>b:2"]),
        ):
            new = Settings(pools=(pool(upstream),))
            self.assertEqual([line for line in comparison(old, new) if "pool-size" not in line], lines)
