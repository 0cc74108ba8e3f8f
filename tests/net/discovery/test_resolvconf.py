# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.resolvconf}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.discovery.resolvconf import ResolvConf, parseResolvConf


class ResolvConfTests(SynchronousTestCase):
    """
    Tests for L{ResolvConf} and L{parseResolvConf}.
    """

    def test_parse(self) -> None:
        """
        Servers, search domains and options are read.
        """
        text = (
            "# comment\n; another\n\nnameserver 10.96.0.10\nnameserver ::1 # local\nnameserver bogus\nnameserver\n"
            "domain old.example\nsearch default.svc.cluster.local. svc.cluster.local .\nsortlist 1.2.3.4\n"
            "options ndots:5 timeout:3 attempts:4 rotate bogus:x\n"
        )
        expected = ResolvConf(
            (("10.96.0.10", 53), ("::1", 53)), (b"default.svc.cluster.local", b"svc.cluster.local"), 5, 3, 4
        )
        self.assertEqual(parseResolvConf(text), expected)

    def test_default(self) -> None:
        """
        Without servers the local one is asked.
        """
        self.assertEqual(parseResolvConf(""), ResolvConf())
        self.assertEqual(ResolvConf().servers, (("127.0.0.1", 53),))

    def test_bounds(self) -> None:
        """
        The numbers of servers and attempts are bounded.
        """
        text = "".join(f"nameserver 10.0.0.{number}\n" for number in range(9))
        found = parseResolvConf(text + "options timeout:0 attempts:99 ndots:99")
        self.assertEqual((len(found.servers), found.timeout, found.attempts, found.ndots), (3, 1, 5, 15))
        self.assertEqual(parseResolvConf("options attempts:0").attempts, 1)

    def test_candidates(self) -> None:
        """
        A short name is first looked up in the search domains, others as they are.
        """
        conf = ResolvConf(search=(b"a.example", b"example"), ndots=2)
        for name, candidates in (
            (b"cache", (b"cache.a.example", b"cache.example", b"cache")),
            (b"cache.x", (b"cache.x.a.example", b"cache.x.example", b"cache.x")),
            (b"cache.x.y", (b"cache.x.y", b"cache.x.y.a.example", b"cache.x.y.example")),
            (b"cache.", (b"cache",)),
        ):
            self.assertEqual(conf.candidates(name), candidates)
        self.assertEqual(ResolvConf().candidates(b"cache"), (b"cache",))
