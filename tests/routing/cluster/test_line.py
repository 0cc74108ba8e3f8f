# -*- test-case-name: tests.routing.cluster.test_line -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.cluster.line}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.syntax import checkClient
from txconnpool.routing.cluster.line import isCluster, readCluster
from txconnpool.wire.topology import Node


class LineTests(SynchronousTestCase):
    """
    Tests for the line of a cluster.
    """

    def test_is(self) -> None:
        """
        Other lines are not those of a cluster.
        """
        self.assertTrue(isCluster("cluster:a:1"))
        self.assertTrue(isCluster(" Cluster:a:1"))
        self.assertFalse(isCluster("tcp:cluster:6379"))

    def test_source(self) -> None:
        """
        The seeds may be looked up.
        """
        for text, source in (
            ("cluster:dns:redis.example:6379", "dns:redis.example:6379"),
            ("Cluster:SRV:_redis._tcp.example resolver=127.0.0.1:53", "SRV:_redis._tcp.example resolver=127.0.0.1:53"),
        ):
            line = readCluster(text)
            self.assertEqual((line.source, line.seeds), (source, ()))
            self.assertEqual(readCluster(str(line)), line)
            found = line.found(["tcp:10.0.0.1:7000", r"tcp:2001\:db8\:\:1:7001"])
            self.assertEqual(found.seeds, (Node("10.0.0.1", 7000), Node("2001:db8::1", 7001)))
            self.assertEqual(str(found), str(line))
        self.assertEqual(readCluster("cluster:dns:6379,srv:1").seeds, (Node("dns", 6379), Node("srv", 1)))
        for text in ("cluster:a:1 resolver=127.0.0.1", "cluster:srv:a resolver=127.0.0.1 resolver=127.0.0.1"):
            self.assertIn("unexpected 'resolver=", str(self.assertRaises(ValueError, readCluster, text)))

    def test_seeds(self) -> None:
        """
        The seeds are host names or addresses, and have endpoints.
        """
        line = readCluster("cluster:redis.example:6379,10.0.0.1:7000,[2001:db8::1]:7001")
        self.assertEqual(line.seeds, (Node("redis.example", 6379), Node("10.0.0.1", 7000), Node("2001:db8::1", 7001)))
        endpoints = ["tcp:redis.example:6379", "tcp:10.0.0.1:7000", r"tcp:2001\:db8\:\:1:7001"]
        self.assertEqual(line.endpoints, endpoints)
        for endpoint in endpoints:
            checkClient(endpoint)
        self.assertFalse(line.secure)

    def test_tls(self) -> None:
        """
        Words that only TLS has select it.
        """
        self.assertEqual(readCluster("cluster:a:1 tls=yes").endpoints, ["tls:a:1"])
        line = readCluster("cluster:a:1 trustRoots=ca certificate=/b privateKey=/c")
        self.assertEqual(line.endpoints, ["tls:a:1:trustRoots=ca:certificate=/b:privateKey=/c"])
        located = line.located("/etc/x")
        self.assertEqual(located.endpoints, ["tls:a:1:trustRoots=/etc/x/ca:certificate=/b:privateKey=/c"])
        checkClient(located.endpoints[0])

    def test_map(self) -> None:
        """
        Nodes may be reached at other addresses than those that the cluster reports.
        """
        line = readCluster("cluster:a:1 map=10.0.0.1:6379>b:7001,[::1]:5>c:6")
        self.assertEqual(line.addresses, {Node("10.0.0.1", 6379): Node("b", 7001), Node("::1", 5): Node("c", 6)})

    def test_text(self) -> None:
        """
        The text of a line is a line again.
        """
        for text in (
            "cluster:a:1,[::1]:2", "cluster:a:1 tls=yes", "cluster:a:1 trustRoots=/x map=b:1>c:2,d:3>[::1]:4",
        ):  # fmt: skip
            self.assertEqual(str(readCluster(text)), text)

    def test_wrong(self) -> None:
        """
        A wrong line is an error that says what would be right.
        """
        for text, what in (
            ("cluster:", "wrong node ''; expected cluster:HOST:PORT"),
            ("cluster:a", "wrong node 'a'"),
            ("cluster:a:1,", "wrong node ''"),
            ("cluster:a:0", "wrong port 0"),
            ("cluster:a:65536", "wrong port 65536"),
            ("cluster:::1:6379", "IPv6"),
            ("cluster:a:1,a:1", "listed twice"),
            ("cluster:a:1 tls=no", "unexpected 'tls=no'; expected tls=yes"),
            ("cluster:a:1 weight=2", "unexpected 'weight=2'"),
            ("cluster:a:1 map=a:1", "wrong node ''; expected map="),
            ("cluster:a:1 certificate=x", "belong together"),
        ):
            error = self.assertRaises(ValueError, readCluster, text)
            self.assertIn(what, str(error))
