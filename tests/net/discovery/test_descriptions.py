# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.descriptions}.
"""

from __future__ import annotations

from twisted.internet.endpoints import clientFromString
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.discovery.descriptions import (
    Description,
    Discovered,
    checkDiscovery,
    endpointString,
    isDiscovery,
    parse,
)
from txconnpool.net.syntax import checkClient


class ParseTests(SynchronousTestCase):
    """
    Tests for L{isDiscovery}, L{parse} and L{checkDiscovery}.
    """

    def test_isDiscovery(self) -> None:
        """
        Server lines with one of three types name a source of servers.
        """
        for description in ("dns:a:1", "srv:a", "elasticache:a:1", "DNS:a:1", " dns:wrong"):
            self.assertTrue(isDiscovery(description), description)
        for description in ("tcp:dns:1", "dns", "unix:/dns:1", "memory:", "dnsx:a:1", ""):
            self.assertFalse(isDiscovery(description), description)

    def test_right(self) -> None:
        """
        The parts of a server line are parsed.
        """
        for line, expected in (
            ("dns:cache.example.org:11211", Description("dns", "cache.example.org", 11211)),
            ("DNS:cache:1  weight=2", Description("dns", "cache", 1, weight=2.0)),
            ("dns:b\u00fccher.example:1", Description("dns", "xn--bcher-kva.example", 1)),
            ("dns:a.example.:1 label=cache-{ip}", Description("dns", "a.example.", 1, label="cache-{ip}")),
            ("srv:_memcache._tcp.example.org", Description("srv", "_memcache._tcp.example.org")),
            ("srv:a label={host}:{port} weight=0.5", Description("srv", "a", 0, "{host}:{port}", 0.5)),
            (
                "elasticache:a.cfg.cache.amazonaws.com:11211",
                Description("elasticache", "a.cfg.cache.amazonaws.com", 11211),
            ),
            (r"elasticache:\:\:1:65535", Description("elasticache", "::1", 65535)),
            ("sentinel:cache@a", Description("sentinel", "cache", sentinels=(("a", 26379),))),
            (
                "Sentinel:my-cache.1@10.0.0.1:1,[::1]:2,[::2],a.b:3",
                Description(
                    "sentinel", "my-cache.1", sentinels=(("10.0.0.1", 1), ("::1", 2), ("::2", 26379), ("a.b", 3))
                ),
            ),
            ("elasticache:127.0.0.1:1 label={ip}", Description("elasticache", "127.0.0.1", 1, "{ip}")),
            (
                "dns:a:1 resolver=127.0.0.1:8600,10.0.0.1,[::1],[::1]:5353",
                Description(
                    "dns", "a", 1, resolver=(("127.0.0.1", 8600), ("10.0.0.1", 53), ("::1", 53), ("::1", 5353))
                ),
            ),
        ):
            self.assertEqual(parse(line), expected)
            checkDiscovery(line)

    def test_wrong(self) -> None:
        """
        A wrong server line is refused with one line that says what is right.
        """
        for line, text in (
            ("", "unknown source of servers ''; expected dns, srv, elasticache or sentinel"),
            ("tcp:a:1", "unknown source of servers 'tcp'; expected dns, srv, elasticache or sentinel"),
            ("dns:a", "expected dns:HOST:PORT"),
            ("dns:a:", "expected dns:HOST:PORT"),
            ("dns::1", "expected dns:HOST:PORT"),
            ("dns:a:1:2", "expected dns:HOST:PORT"),
            ("srv:", "expected srv:NAME"),
            ("srv:a:1", "expected srv:NAME"),
            ("elasticache:a", "expected elasticache:HOST:PORT"),
            *(
                (
                    wrong,
                    "expected sentinel:NAME@HOST:PORT,HOST:PORT, with the name of the master that the sentinels watch",
                )
                for wrong in (
                    "sentinel:",
                    "sentinel:a",
                    "sentinel:@a",
                    "sentinel:a:1",
                    "sentinel:a*@b",
                )
            ),
            *(
                (
                    f"sentinel:a@{wrong}",
                    f"wrong sentinel {wrong.split(',')[-1]!r}; expected HOST:PORT, as in 10.0.0.1:26379 or [::1]:26379",
                )
                for wrong in ("", "a,", ":1", "[a]:1", "::1", "a/b", "[::1", "b:1,[]:2")
            ),
            ("sentinel:a@b:0", "wrong port '0'; expected a number from 1 to 65535"),
            ("sentinel:a@b:x", "wrong port 'x'; expected a number from 1 to 65535"),
            ("sentinel:a@b,c,b:26379", "a sentinel is there twice; expected each only once"),
            (
                "sentinel:a@b label=c",
                "unexpected 'label=c' after sentinel:; expected tls=yes, trustRoots=DIRECTORY, certificate=FILE, "
                "privateKey=FILE or nothing, each only once",
            ),
            ("sentinel:a@b certificate=c", "certificate= and privateKey= belong together; expected both or none"),
            ("dns:a:x", "wrong port 'x'; expected a number from 1 to 65535"),
            ("dns:a:0", "wrong port '0'; expected a number from 1 to 65535"),
            ("dns:a:65536", "wrong port '65536'; expected a number from 1 to 65535"),
            ("dns:a..b:1", "wrong name 'a..b'; expected one such as cache.example.org"),
            ("dns:a/b:1", "wrong name 'a/b'; expected one such as cache.example.org"),
            (f"dns:{'a' * 64}:1", f"wrong name '{'a' * 64}'; expected one such as cache.example.org"),
            ("dns:\u00fc..b:1", "wrong name '\u00fc..b'; expected one such as cache.example.org"),
            (
                "dns:10.0.0.1:11211",
                "dns: looks up a name, and 10.0.0.1 is an address; expected tcp:HOST:PORT for one server",
            ),
            ("dns:a:1 bogus", "unexpected 'bogus'; expected label=, weight= or resolver= with a value"),
            ("dns:a:1 label=", "unexpected 'label='; expected label=, weight= or resolver= with a value"),
            ("elasticache:a:1 resolver=::1", "unexpected 'resolver=::1'; expected label= or weight= with a value"),
            (
                "dns:a:1 label=cache",
                "label=cache is the same for all servers; expected {ip} in it, as in label=cache-{ip}",
            ),
            ("dns:a:1 label={name}{ip}", "wrong {name} in label={name}{ip}; expected {host} or {ip} or {port}"),
            ("dns:a:1 label={ip}{", "wrong { in label={ip}{; expected {host} or {ip} or {port}"),
            ("srv:a label={ip}", "wrong {ip} in label={ip}; expected {host} or {port}"),
            (
                "elasticache:a:1 label=x",
                "label=x is the same for all servers; expected {host} or {ip} in it, as in label=cache-{host}",
            ),
            ("dns:a:1 weight=x", "wrong weight 'x'; expected a number such as 2"),
            ("dns:a:1 weight=-1", "wrong weight '-1'; expected a number such as 2"),
            (
                "dns:a:1 resolver=ns.example",
                "wrong resolver 'ns.example'; expected the IP address of a DNS server, as in 127.0.0.1:8600",
            ),
            (
                "dns:a:1 resolver=::1",
                "wrong resolver '::1'; expected the IP address of a DNS server, as in 127.0.0.1:8600",
            ),
            ("dns:a:1 resolver=127.0.0.1:x", "wrong port 'x'; expected a number from 1 to 65535"),
        ):
            error = self.assertRaises(ValueError, checkDiscovery, line)
            self.assertEqual(str(error), text)

    def test_label(self) -> None:
        """
        The placeholders of a label are replaced. Without a label there is the default.
        """
        description = parse("dns:cache:1 label={host}-{ip}-{port}-{ip}")
        self.assertEqual(description.labelOf("h", "{port}", 7, "default"), "h-{port}-7-{port}")
        self.assertEqual(parse("dns:cache:1").labelOf("h", "ip", 7, "default"), "default")


class DiscoveredTests(SynchronousTestCase):
    """
    Tests for L{Discovered} and L{endpointString}.
    """

    def test_line(self) -> None:
        """
        The text of a server is its server line.
        """
        for server, line in (
            (Discovered("tcp:10.0.0.1:1"), "tcp:10.0.0.1:1"),
            (Discovered("tcp:10.0.0.1:1", "a", 2.0), "tcp:10.0.0.1:1 weight=2 label=a"),
            (Discovered("tcp:10.0.0.1:1", None, 0.5), "tcp:10.0.0.1:1 weight=0.5"),
        ):
            self.assertEqual(str(server), line)

    def test_endpointString(self) -> None:
        """
        Twisted parses the endpoint strings of names and addresses of both families.
        """
        for host in ("cache.example.org", "10.0.0.1", "::1", "2001:db8::1"):
            reactor = MemoryReactor()
            description = endpointString(host, 11211)
            checkClient(description)
            clientFromString(reactor, description).connect(None).addErrback(lambda failure: None)
            self.assertEqual(reactor.tcpClients[0][:2], (host, 11211))
