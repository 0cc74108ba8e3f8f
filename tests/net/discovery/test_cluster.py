# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.cluster}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.discovery.cluster import Node, parseCluster

#: A reply as in the documentation of the protocol.
REPLY = (
    b"CONFIG cluster 0 147\r\n"
    b"12\n"
    b"my.0001.use1.cache.amazonaws.com|10.82.235.120|11211 my.0002.use1.cache.amazonaws.com|10.80.249.27|11211\n\r\n"
    b"END\r\n"
)


class ParseTests(SynchronousTestCase):
    """
    Tests for L{parseCluster}.
    """

    def test_nodes(self) -> None:
        """
        The nodes are parsed.
        """
        self.assertEqual(
            parseCluster(REPLY),
            (
                Node("my.0001.use1.cache.amazonaws.com", "10.82.235.120", 11211),
                Node("my.0002.use1.cache.amazonaws.com", "10.80.249.27", 11211),
            ),
        )

    def test_incomplete(self) -> None:
        """
        Nothing is known of a reply before its last byte.
        """
        for end in range(len(REPLY)):
            self.assertIsNone(parseCluster(REPLY[:end]))

    def test_forms(self) -> None:
        """
        A node may have no address, or no name, or an IPv6 address.
        """
        for text, node in (
            (b"cache-1||11211", Node("cache-1", "", 11211)),
            (b"cache-1|cache-1|11211", Node("cache-1", "", 11211)),
            (b"|10.0.0.1|11211", Node("10.0.0.1", "10.0.0.1", 11211)),
            (b"10.0.0.1|10.0.0.1|1", Node("10.0.0.1", "10.0.0.1", 1)),
            (b"::1|::1|1", Node("::1", "::1", 1)),
            (b"a|2001:DB8:0::1|1", Node("a", "2001:db8::1", 1)),
        ):
            self.assertEqual(parseCluster(b"CONFIG cluster 0 0\r\n1\r\n%s\r\n\r\nEND\r\n" % text), (node,))

    def test_wrong(self) -> None:
        """
        Anything else is refused with the reason.
        """
        for data, text in (
            (b"ERROR\r\n", "the server has no list of a cluster"),
            (b"CLIENT_ERROR no\r\n", "the server has no list of a cluster"),
            (b"END\r\n", "the server has no list of a cluster"),
            (b"HTTP/1.1 400 Bad Request\r\n", "not a reply of memcached"),
            (b"\x00\xff\n", "not a reply of memcached"),
            (b"CONFIG cluster 0 0\r\nEND\r\n", "the list of the cluster has no version"),
            (b"CONFIG cluster 0 0\r\nx\na|1.1.1.1|1\n\r\nEND\r\n", "the list of the cluster has no version"),
            (b"CONFIG cluster 0 0\r\n1\n\n\r\nEND\r\n", "the list of the cluster is empty"),
            (b"CONFIG cluster 0 0\r\n1\na|b\n\r\nEND\r\n", "'a|b' in the list of the cluster is not HOST|IP|PORT"),
            (b"CONFIG cluster 0 0\r\n1\na|b|c\n\r\nEND\r\n", "wrong port 'c'; expected a number from 1 to 65535"),
            (
                b"CONFIG cluster 0 0\r\n1\n!|?|1\n\r\nEND\r\n",
                "'!|?|1' in the list of the cluster has neither a name nor an address",
            ),
        ):
            self.assertEqual(str(self.assertRaises(ValueError, parseCluster, data)), text)
