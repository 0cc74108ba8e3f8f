# -*- test-case-name: tests.routing.distribution.test_vectors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that keys go to the same servers as with the running systems, servers that are down included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.routing.vectordata import Case, cases
from txconnpool.routing.distribution import Distribution, KeyMap, ServerSpec
from txconnpool.routing.distribution.locators import Ring
from txconnpool.routing.distribution.rings import hashedPoints
from txconnpool.routing.distribution.servers import LIBMEMCACHED, Member
from txconnpool.routing.hashing import md5, oneAtATime


def specs(case: Case, weights: bool | Sequence[float] = True) -> list[ServerSpec]:
    """
    @param weights: whether the servers have the weights of the file, or all weights.
    @return: the servers of a case.
    """
    given = list(weights) if not isinstance(weights, bool) else [server[2] for server in case.servers]
    found = []
    for (host, port, _, *label), weight in zip(case.servers, given, strict=True):
        named: dict[str, Any] = {"path": host} if host.startswith("/") else {"host": host, "port": port}
        found.append(ServerSpec(**named, weight=weight if weights else None, label=label[0] if label else None))
    return found


def encoded(key: str) -> bytes:
    return key.encode()


def asSorted(case: Case, distribution: Distribution) -> list[int]:
    """
    @return: where the keys go if the servers are sorted by host and port, as C{SORT_HOSTS} of libmemcached does.
    """
    servers = specs(case)
    order = sorted(range(len(servers)), key=lambda index: tuple(case.servers[index][:2]))
    keyMap = distribution.build([servers[index] for index in order])
    return [order[keyMap.cached[key.encode()]] for key in case.keys]


class VectorTests(SynchronousTestCase):
    """
    Tests with the vectors of the running systems.
    """

    def compare(
        self,
        case: Case,
        distribution: Distribution,
        weights: bool | Sequence[float] = True,
        wire: Callable[[str], bytes] = encoded,
    ) -> KeyMap:
        """
        Compare one case.

        @param wire: makes the bytes of a key.
        """
        keyMap = distribution.build(specs(case, weights), case.down)
        self.assertEqual([keyMap.cached[wire(key)] for key in case.keys], case.to, f"{distribution} {case}")
        return keyMap

    def test_twemproxy(self) -> None:
        """
        Ketama and modula of twemproxy: all hashes, hash tags, labels, and servers that were ejected.
        """
        for file, name in (("twemproxy-ketama", "twemproxy"), ("twemproxy-modula", "twemproxy-modula")):
            for case in cases(file):
                tag = case.settings.get("hash_tag", "").encode()
                self.compare(case, Distribution(name, case.settings["hash"], hashTag=tag))

    def test_libmemcached(self) -> None:
        """
        The default of libmemcached, also with sorted hosts. A dead server keeps its keys.
        """
        for case in cases("libmemcached-modula"):
            distribution = Distribution("libmemcached", case.settings["hash"])
            if "sort_hosts" in case.settings:
                self.assertEqual(asSorted(case, distribution), case.to, str(case))
            else:
                self.compare(case, distribution)

    def test_libmemcachedConsistent(self) -> None:
        """
        Consistent hashing of libmemcached. Servers that are added before the distribution is set have no weights; the
        points keep the hash that was set before them.
        """
        for case in cases("libmemcached-consistent"):
            order = case.settings.get("order", "")
            if order.startswith("hash set after"):
                members = [Member(index, LIBMEMCACHED(server).encode(), 1) for index, server in enumerate(specs(case))]
                ring = Ring(hashedPoints(members, oneAtATime), md5)
                self.assertEqual([ring.locate(key.encode()) for key in case.keys], case.to, str(case))
            else:
                distribution = Distribution("libmemcached-consistent", case.settings.get("hash"))
                self.compare(case, distribution, weights=not order)

    def test_libmemcachedWeighted(self) -> None:
        """
        Ketama with weights of libmemcached. The order of the servers does not matter.
        """
        for case in cases("libmemcached-ketama-weighted"):
            distribution = Distribution("libmemcached-weighted", case.settings.get("hash"))
            self.compare(case, distribution)
            if "sort_hosts" in case.settings:
                self.assertEqual(asSorted(case, distribution), case.to, str(case))

    def test_pylibmc(self) -> None:
        """
        The behaviors of pylibmc. C{distribution} overrides C{ketama_weighted}, which overrides C{hash} and C{ketama}.
        """
        for case in cases("pylibmc"):
            behaviors = case.settings["behaviors"] or {}
            name, hashName = "libmemcached", behaviors.get("hash")
            if behaviors.get("ketama"):
                name = "libmemcached-consistent"
            if behaviors.get("ketama_weighted"):
                name, hashName = "libmemcached-weighted", "md5"
            match behaviors.get("distribution"):
                case "consistent" | "consistent ketama":
                    name = "libmemcached-consistent"
                case "consistent weighted":
                    name, hashName = "libmemcached-weighted", hashName or "one_at_a_time"
            distribution = Distribution(name, hashName)
            if "_sort_hosts" in behaviors:
                self.assertEqual(asSorted(case, distribution), case.to, str(case))
            else:
                self.compare(case, distribution)

    def test_php(self) -> None:
        """
        The options of PHP's C{memcached}. The last one of several counts.
        """
        expected = {
            "default": ("libmemcached", None, True),
            "OPT_DISTRIBUTION=CONSISTENT": ("libmemcached-consistent", None, True),
            "OPT_LIBKETAMA_COMPATIBLE=true": ("libmemcached-weighted", None, True),
            "OPT_DISTRIBUTION=CONSISTENT, OPT_LIBKETAMA_COMPATIBLE=true": ("libmemcached-weighted", None, True),
            "OPT_LIBKETAMA_COMPATIBLE=true, OPT_DISTRIBUTION=CONSISTENT": ("libmemcached-consistent", "md5", True),
            "OPT_HASH=HASH_CRC": ("libmemcached", "crc", True),
            "OPT_HASH=HASH_MD5, OPT_DISTRIBUTION=CONSISTENT": ("libmemcached-consistent", "md5", True),
            "OPT_LIBKETAMA_COMPATIBLE=true after addServers": ("libmemcached-weighted", None, True),
            "OPT_DISTRIBUTION=CONSISTENT after addServers": ("libmemcached-consistent", None, False),
            "OPT_LIBKETAMA_COMPATIBLE=true, OPT_HASH=HASH_FNV1A_64": ("libmemcached-weighted", "fnv1a_64", True),
            "setOptions(DISTRIBUTION_CONSISTENT, LIBKETAMA_COMPATIBLE, REMOVE_FAILED_SERVERS)": (
                *("libmemcached-weighted", None, True),
            ),
        }
        for case in cases("php-memcached"):
            name, hashName, weights = expected[case.settings["options"]]
            self.compare(case, Distribution(name, hashName), weights)

    def test_pymemcache(self) -> None:
        """
        pymemcache with keys in C{str}. It hashes the C{repr} of keys in C{bytes}.
        """
        for case in cases("pymemcache"):
            asBytes = case.settings["keys are"] == "bytes"
            wire = (lambda key: repr(key.encode()).encode()) if asBytes else encoded
            self.compare(case, Distribution("pymemcache"), weights=False, wire=wire)

    def test_pythonMemcached(self) -> None:
        """
        python-memcached with its two hashes. Some keys find no live server.
        """
        for case in cases("python-memcached"):
            hashName = "crc32" if case.settings["hash"] == "cmemcache_hash" else "crc32a"
            keyMap = self.compare(case, Distribution("python-memcached", hashName))
            if case.down:
                self.assertEqual(sum(keyMap.shares()) < 0.999, case.pool == "weighted")

    def test_perl(self) -> None:
        """
        C{Cache::Memcached} has the map of python-memcached, and so have C{Cache::Memcached::Fast} without ketama and
        PHP's C{memcache} without consistent hashing.
        """
        for file, selected in (
            ("Cache-Memcached", {"no_rehash": False}),
            ("Cache-Memcached-Fast", {"ketama_points": 0}),
            ("pecl-memcache", {"hash_strategy": "standard", "hash_function": "crc32"}),
        ):
            found = [case for case in cases(file) if case.settings == selected and not case.down]
            self.assertEqual(len(found), 4)
            for case in found:
                self.compare(case, Distribution("python-memcached"))

    def test_dalli(self) -> None:
        """
        dalli, also when servers are down.
        """
        for case in cases("dalli"):
            self.compare(case, Distribution("dalli"))

    def test_gomemcache(self) -> None:
        """
        gomemcache, which has no weights.
        """
        for case in cases("gomemcache"):
            self.compare(case, Distribution("gomemcache"), weights=False)

    def test_spymemcached(self) -> None:
        """
        The ring of spymemcached. With weights it is that of ketama, with the labels of libmemcached on request.
        """
        count = 0
        for case in cases("spymemcached"):
            settings = case.settings
            weights = settings.get("weights", False)
            if settings.get("hash", "KETAMA_HASH") != "KETAMA_HASH" or settings["factory"].startswith("Default"):
                continue
            if settings.get("locator") == "ARRAY_MOD":
                self.compare(case, Distribution("libmemcached", "md5"))
            elif settings.get("format") == "LIBMEMCACHED":
                if not weights:
                    continue
                self.compare(case, Distribution("ketama"))
            else:
                self.compare(case, Distribution("spymemcached"), weights)
            count += 1
        self.assertEqual(count, 24)

    def test_mcrouter(self) -> None:
        """
        mcrouter's C{Ch3}, C{WeightedCh3} and C{Crc32}, with a salt too.
        """
        for case in cases("mcrouter"):
            settings = case.settings
            if settings["hash_func"].endswith("Rendezvous"):
                continue
            hashName = "crc32" if settings["hash_func"] == "Crc32" else None
            distribution = Distribution("mcrouter", hashName, hashSalt=settings.get("salt", "").encode())
            self.compare(case, distribution, settings.get("weights", False))

    def test_unixSockets(self) -> None:
        """
        Servers on UNIX sockets: the label of a path.
        """
        for case in cases("unix-sockets"):
            settings = case.settings
            system, hashName = settings["system"].split()[0], settings.get("hash")
            if system == "twemproxy" and settings["distribution"] == "modula":
                system = "twemproxy-modula"
            if system == "pylibmc":
                behaviors = settings["behaviors"] or {}
                system = "libmemcached-weighted" if "ketama_weighted" in behaviors else "libmemcached"
                if "ketama" in behaviors:
                    system = "libmemcached-consistent"
            self.compare(case, Distribution(system, hashName))

    def some(
        self,
        file: str,
        count: int,
        name: str,
        weights: bool = True,
        select: Callable[[dict[str, Any]], Any] = lambda settings: True,
        hashName: str | None = None,
    ) -> None:
        """
        Compare some cases of a file with one distribution.

        @param count: the number of these cases.
        @param select: chooses them by their settings.
        """
        found = [case for case in cases(file) if select(case.settings)]
        self.assertEqual(len(found), count, file)
        for case in found:
            self.compare(case, Distribution(name, hashName), weights)

    def test_perlRetries(self) -> None:
        """
        C{Cache::Memcached} when servers are down.
        """
        self.some("Cache-Memcached", 8, "cache-memcached")

    def test_java(self) -> None:
        """
        The defaults of spymemcached and xmemcached, the ketama of xmemcached, and the labels of libmemcached in
        spymemcached without weights.
        """
        self.some("spymemcached", 8, "java-modulo", False, lambda settings: settings["factory"].startswith("Default"))
        self.some("xmemcached", 4, "java-modulo", True, lambda settings: settings["locator"].startswith("Array"))
        self.some(
            "xmemcached",
            4,
            "xmemcached",
            True,
            lambda settings: settings["locator"].endswith("KetamaMemcachedSessionLocator"),
        )
        self.some(
            "spymemcached",
            4,
            "node-memcached",
            False,
            lambda settings: "format" in settings and "weights" not in settings,
        )

    def test_node(self) -> None:
        """
        Clients for Node.js, and uhashring with ketama.
        """
        self.some(
            "node-memcached", 8, "node-memcached", True, lambda settings: settings.get("compatibility") != "hash_ring"
        )
        self.some("node-hashring", 8, "node-hashring")
        self.some("uhashring", 11, "node-hashring", True, lambda settings: settings["hash_fn"] == "ketama")
        self.some("memjs", 4, "memjs", False)

    def test_pecl(self) -> None:
        """
        Consistent hashing of PHP's C{memcache}.
        """
        for function, hashName in (("crc32", "crc32a"), ("fnv", "fnv1a_32")):
            selected = {"hash_strategy": "consistent", "hash_function": function}
            self.some("pecl-memcache", 4, "pecl-memcache", True, selected.__eq__, hashName)

    def test_nginx(self) -> None:
        """
        C{consistent} of nginx, as C{Cache::Memcached::Fast} has it. Nobody else serves the keys of a dead server.
        """
        found = [case for case in cases("Cache-Memcached-Fast") if case.settings["ketama_points"] == 160]
        self.assertEqual(len(found), 8)
        for case in found:
            keyMap = Distribution("nginx").build(specs(case), case.down)
            indexes = [keyMap.locate(key.encode()) for key in case.keys]
            self.assertEqual([-1 if index in case.down else index for index in indexes], case.to, str(case))

    def test_mcrouterRendezvous(self) -> None:
        """
        C{Rendezvous} and C{WeightedRendezvous} of mcrouter.
        """
        count = 0
        for case in cases("mcrouter"):
            if case.settings["hash_func"].endswith("Rendezvous"):
                self.compare(case, Distribution("mcrouter-rendezvous"), case.settings.get("weights", False))
                count += 1
        self.assertEqual(count, 12)

    def test_memcachedProxy(self) -> None:
        """
        The proxy in memcached: jump hash with its filters, the ring with XXH3, and the rings with MD5.
        """
        ring = {"dist": "ring_hash", "hash": "dist_ring_hash.hash (md5)"}
        expected: tuple[tuple[dict[str, str], Distribution], ...] = (
            ({}, Distribution("memcached-proxy")),
            ({"filter": "tags", "filter_conf": "{}"}, Distribution("memcached-proxy", hashTag=b"{}")),
            ({"filter": "stop", "filter_conf": "|#|"}, Distribution("memcached-proxy", hashStop=b"|#|")),
            ({"dist": "ring_hash"}, Distribution("memcached-proxy-ring")),
            ({**ring, "omode": "ketama"}, Distribution("spymemcached")),
            ({**ring, "omode": "twemproxy"}, Distribution("node-memcached")),
        )
        count = 0
        for case in cases("memcached-proxy"):
            for settings, distribution in expected:
                if case.settings == settings:
                    self.compare(case, distribution, weights=False)
                    count += 1
        self.assertEqual(count, 20)
