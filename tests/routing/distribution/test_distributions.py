# -*- test-case-name: tests.routing.distribution.test_distributions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.distributions} and L{txconnpool.routing.distribution.servers}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution import NAMES, NOBODY, ROUND_ROBIN, Distribution, ServerSpec
from txconnpool.routing.distribution.distributions import SCHEMES
from txconnpool.routing.distribution.keymap import sampleKeys
from txconnpool.routing.distribution.scheme import WhenDown

#: Servers as lists of hosts and ports, which may be equal to the default port.
addresses = st.lists(
    st.tuples(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.sampled_from((11211, 11212, 1))),
    min_size=1,
    max_size=8,
    unique=True,
)

keys = st.lists(st.binary(min_size=1, max_size=250), min_size=1, max_size=20)

#: All maps of keys: names and hashes.
maps = st.sampled_from([(name, hashName) for name, scheme in SCHEMES.items() for hashName in scheme.hashes or (None,)])

#: Maps in which labels stand for the servers.
LABELLED = [name for name, scheme in SCHEMES.items() if scheme.label]


def servers(*hosts: str, port: int = 11211, weight: float | None = None) -> list[ServerSpec]:
    """
    @return: servers on the same port.
    """
    return [ServerSpec(host, port, weight=weight) for host in hosts]


THREE = servers("10.0.0.1", "10.0.0.2", "10.0.0.3")


class NameTests(SynchronousTestCase):
    """
    Tests for the values of a distribution.
    """

    def test_default(self) -> None:
        """
        The default is ketama with MD5.
        """
        self.assertEqual(Distribution(), Distribution("ketama", "md5", hashStop=b""))

    def test_names(self) -> None:
        """
        All names can be used; equal servers have no map.
        """
        for name in NAMES:
            distribution = Distribution(name)
            self.assertEqual(distribution.keyed, name != ROUND_ROBIN)
            distribution.check(THREE)
        roundRobin = Distribution(ROUND_ROBIN)
        self.assertFalse(roundRobin.positional or roundRobin.redistributes)
        self.assertEqual(roundRobin.warnings(THREE), [])
        self.assertEqual(roundRobin.labels(THREE)[0], "10.0.0.1:11211")
        message = str(self.assertRaises(ValueError, roundRobin.build, THREE))
        self.assertEqual(message, "the distribution round-robin has no map of keys")

    def test_aliases(self) -> None:
        """
        libmemcached's own names of hashes are understood; the same distribution is equal.
        """
        self.assertEqual(Distribution("libmemcached", "default"), Distribution("libmemcached"))
        self.assertEqual(Distribution("libmemcached", "crc").hash, "crc32")
        self.assertEqual(Distribution("dalli").hash, "")
        self.assertEqual((Distribution("mcrouter").hash, Distribution("mcrouter").hashStop), ("ch3", b"|#|"))
        self.assertEqual(Distribution("mcrouter", hashStop=b"").hashStop, b"")

    def test_wrong(self) -> None:
        """
        Wrong values are refused with what would be right.
        """
        for arguments, message in (
            ({"name": "kemata"}, f"unknown distribution 'kemata', must be one of: {', '.join(NAMES)}"),
            (
                {"name": "python-memcached", "hash": "md5"},
                "wrong hash 'md5' for the distribution python-memcached: must be one of: crc32, crc32a",
            ),
            (
                {"name": "dalli", "hash": "md5"},
                "wrong hash 'md5' for the distribution dalli: its hash cannot be chosen",
            ),
            ({"hashTag": b"{"}, "wrong hash tag b'{': must be two characters, for example {}"),
            (
                {"name": ROUND_ROBIN, "hashTag": b"{}"},
                "the distribution round-robin hashes no keys, so it takes no hash, tag, stop or skip",
            ),
        ):
            with self.assertRaises(ValueError) as caught:
                Distribution(**arguments)
            self.assertEqual(str(caught.exception), message)


class ServerTests(SynchronousTestCase):
    """
    Tests for the servers of a distribution.
    """

    def refused(self, distribution: Distribution, specs: list[ServerSpec]) -> str:
        """
        @return: the error for these servers.
        """
        with self.assertRaises(ValueError) as built:
            distribution.build(specs)
        with self.assertRaises(ValueError) as checked:
            distribution.check(specs)
        self.assertEqual(str(built.exception), str(checked.exception))
        return str(built.exception)

    def test_labels(self) -> None:
        """
        Each system has its own rule for labels. Names of hosts are used as they are written.
        """
        specs = [
            ServerSpec("MC1.example.net", 11211),
            ServerSpec("localhost", 11212, weight=2),
            ServerSpec(path="/run/mc.sock"),
            ServerSpec("10.0.0.1", 11211, label="a:11211"),
        ]
        hosts, given = ["MC1.example.net", "localhost:11212"], "a:11211"
        long = ["MC1.example.net:11211", "localhost:11212", "/run/mc.sock", given]
        for name, labels in (
            ("ketama", [*hosts, "/run/mc.sock", given]),
            ("twemproxy", [*hosts, "/run/mc.sock:", given]),
            ("twemproxy-modula", [*hosts, "/run/mc.sock:", given]),
            ("libmemcached-consistent", [*hosts, "/run/mc.sock:0", given]),
            ("libmemcached-weighted", [*hosts, "/run/mc.sock:0", given]),
            ("xmemcached", ["/MC1.example.net:11211", "/localhost:11212", "/run/mc.sock", given]),
            *((name, long) for name in ("pymemcache", "dalli", "spymemcached", "gomemcache", ROUND_ROBIN)),
        ):
            self.assertEqual(Distribution(name).labels(specs), labels, name)

    def test_duplicates(self) -> None:
        """
        Two servers with the same label are refused, given labels of a positional distribution too.
        """
        specs = [*THREE, ServerSpec("10.0.0.4", 11211, label="10.0.0.1")]
        message = "2 servers have the label '10.0.0.1': each must have its own"
        self.assertEqual(self.refused(Distribution("twemproxy"), specs), message)
        Distribution("dalli").check(specs)
        Distribution("gomemcache").check(specs)
        specs.append(ServerSpec("10.0.0.5", 11211, label="10.0.0.1"))
        self.assertEqual(self.refused(Distribution("gomemcache"), specs), message)

    def test_withoutAddress(self) -> None:
        """
        A server without host and port needs a label, unless its position counts.
        """
        specs = [ServerSpec(), ServerSpec()]
        self.assertEqual(
            self.refused(Distribution("dalli"), specs),
            "a server without host and port or path needs a label for the distribution dalli",
        )
        Distribution("mcrouter").check(specs)
        Distribution("dalli").check([ServerSpec(label="a"), ServerSpec(label="b")])

    def test_none(self) -> None:
        """
        There must be a server.
        """
        self.assertEqual(self.refused(Distribution(), []), "0 servers: must be from 1 to 1048575")

    def test_weights(self) -> None:
        """
        Weights that a system does not have are refused.
        """
        for name, weight, message in (
            ("ketama", 0, "wrong weight 0 of a:1: with the distribution ketama, weights must be integers from 1"),
            ("ketama", 1.5, "wrong weight 1.5 of a:1: with the distribution ketama, weights must be integers from 1"),
            (
                "nginx",
                101,
                "wrong weight 101 of a:1: with the distribution nginx, weights must be integers from 1 to 100",
            ),
            ("dalli", float("inf"), None),
            ("dalli", float("nan"), None),
            (
                "mcrouter",
                2,
                "wrong weight 2 of a:1: with the distribution mcrouter, weights must be numbers from 0 to 1",
            ),
            ("pymemcache", 2, "wrong weight 2 of a:1: with the distribution pymemcache, all weights must be 1"),
        ):
            found = self.refused(Distribution(name), [ServerSpec("a", 1, weight=weight), ServerSpec("b", 1)])
            if message is not None:
                self.assertEqual(found, message)
        for name, weight in (("pymemcache", 1), ("mcrouter", 0.0), ("libmemcached", 7), ("ketama", 2.0)):
            Distribution(name).build(servers("a", "b", weight=weight))

    def test_defaultWeights(self) -> None:
        """
        Servers without a weight have that of the system.
        """
        one = [ServerSpec("a", 1, weight=1), ServerSpec("b", 1)]
        self.assertEqual(
            Distribution("ketama").build(one).shares(), Distribution("ketama").build(servers("a", "b", port=1)).shares()
        )
        half = Distribution("mcrouter").build(one).shares()
        self.assertLess(abs(half[0] - 2 / 3), 0.05)

    def test_warnings(self) -> None:
        """
        What is possible but probably wrong is in the warnings.
        """
        for distribution, specs, found in (
            (Distribution(), THREE, []),
            (
                Distribution("libmemcached"),
                servers("a", "b", weight=2),
                ["the distribution libmemcached ignores weights"],
            ),
            (
                Distribution("twemproxy", "crc32"),
                THREE,
                [
                    "all keys go to 10.0.0.3:11211, because the hash crc32 has 15 bits only and the points have 32",
                ],
            ),
            (
                Distribution("twemproxy", "fnv1_64"),
                THREE,
                ["fnv1_64 spreads keys that differ only in their last digits badly, fnv1a_64 well"],
            ),
            (
                Distribution(),
                [ServerSpec("a", 1, weight=1), ServerSpec("b", 1, weight=900), ServerSpec("c", 1, weight=900)],
                ["a:1 gets no keys"],
            ),
            (Distribution("gomemcache"), [*THREE, THREE[0]], ["10.0.0.1:11211 is listed 2 times"]),
            (
                Distribution("spymemcached"),
                [*THREE, ServerSpec("mc.example.net", 11211), ServerSpec("b", 1, label="b/10.0.0.9:1")],
                ["spymemcached hashes host names as HOST/IP:PORT: give mc.example.net:11211 such a label"],
            ),
            (Distribution("mcrouter"), [*servers("a", "b", weight=1), ServerSpec("c", 1, weight=0)], []),
            *((Distribution(name), THREE[:1], []) for name in SCHEMES),
            *((Distribution(name), THREE, []) for name in SCHEMES),
        ):
            self.assertEqual(distribution.warnings(specs), found, distribution.name)

    def test_describe(self) -> None:
        """
        One line says what the name stands for.
        """
        self.assertEqual(
            Distribution("twemproxy", hashTag=b"{}", hashSkip=b"app:").describe(),
            "twemproxy: a ring of 160 points per server of average weight from the MD5 of LABEL-0, LABEL-1 ...; keys by"
            " fnv1a_64; LABEL is by default HOST:PORT, HOST if the port is 11211, or PATH: of a UNIX socket; weights"
            " must be integers from 1; the prefix app: is not hashed; keys are hashed between {}; when a server is"
            " ejected, the map is recomputed as if the server were not configured",
        )
        self.assertEqual(
            Distribution("mcrouter", hashSalt=b"\xff").describe(),
            "mcrouter: ch3 of the key and the number of servers (ch3 is WeightedCh3 if a server has a weight); a server"
            " is its position in the list; weights must be numbers from 0 to 1; a prefix /REGION/CLUSTER/ is not"
            " hashed; keys are hashed up to |#|; \\xff is appended to keys for hashing; when a server is ejected, its"
            " keys stay with it and fail",
        )
        for name in NAMES:
            self.assertTrue(Distribution(name).describe().startswith(f"{name}: "))


class MapTests(SynchronousTestCase):
    """
    Tests for all maps.
    """

    @given(maps, addresses, keys)
    @settings(deadline=None)
    def test_everyKey(self, names: tuple[str, str | None], hosts: list[tuple[str, int]], some: list[bytes]) -> None:
        """
        Every key has a server, always the same one.
        """
        specs = [ServerSpec(host, port) for host, port in hosts]
        keyMap, again = Distribution(*names).build(specs), Distribution(*names).build(specs)
        for key in some:
            self.assertTrue(0 <= keyMap.cached[key] < len(specs))
            self.assertEqual(keyMap.cached[key], again.locate(key))

    @given(st.sampled_from(LABELLED), st.permutations(range(6)), keys)
    @settings(deadline=None)
    def test_order(self, name: str, order: list[int], some: list[bytes]) -> None:
        """
        Where labels stand for the servers, their order does not matter.
        """
        specs = servers("a", "bb", "c", "dddd", "e", "f")
        before, after = Distribution(name).build(specs), Distribution(name).build([specs[index] for index in order])
        for key in some:
            self.assertEqual(order[after.locate(key)], before.locate(key))

    @given(maps, addresses, st.data())
    @settings(deadline=None)
    def test_down(self, names: tuple[str, str | None], hosts: list[tuple[str, int]], data: st.DataObject) -> None:
        """
        When servers are down, no key goes to one of them, unless the system never moves keys. When none is down any
        more, the map is as before.
        """
        specs = [ServerSpec(host, port) for host, port in hosts]
        down = data.draw(st.sets(st.sampled_from(range(len(specs)))))
        distribution = Distribution(*names)
        before, during = distribution.build(specs), distribution.build(specs, down)
        found = [during.locate(key) for key in sampleKeys(50)]
        if not distribution.redistributes:
            self.assertEqual(found, [before.locate(key) for key in sampleKeys(50)])
        else:
            self.assertFalse(down & set(found))
            if distribution.scheme.whenDown is WhenDown.RECOMPUTED or not down or len(down) == len(specs):
                self.assertEqual(NOBODY in found, len(down) == len(specs))
        self.assertEqual([before.down, during.down], [frozenset(), down if distribution.redistributes else frozenset()])

    def test_downIsUnconfigured(self) -> None:
        """
        A map that is recomputed is the map of the servers that are left.
        """
        specs = [ServerSpec(f"10.0.0.{number}", 11211, weight=number) for number in range(1, 7)]
        for name, scheme in SCHEMES.items():
            if scheme.whenDown is WhenDown.RECOMPUTED and name not in ("pymemcache", "libmemcached-consistent"):
                during = Distribution(name).build(specs, (2,))
                left = Distribution(name).build([*specs[:2], *specs[3:]])
                for key in sampleKeys(100):
                    self.assertEqual(during.locate(key), [0, 1, 3, 4, 5][left.locate(key)], name)

    def test_removal(self) -> None:
        """
        Where labels stand for equal servers, removing one moves only its keys.
        """
        specs = servers("a", "b", "c", "d", "e")
        for name in LABELLED:
            if name == "twemproxy-modula":
                continue
            before, after = Distribution(name).build(specs), Distribution(name).build(specs[:-1])
            for key in sampleKeys(500):
                index = before.locate(key)
                self.assertIn(after.locate(key), range(4) if index == 4 else (index,), name)

    def test_weightStays(self) -> None:
        """
        libmemcached uses its weighted ring even if the only server with a greater weight is down.
        """
        specs = [ServerSpec("a", 1), ServerSpec("b", 1), ServerSpec("c", 1, weight=2)]
        during = Distribution("libmemcached-consistent").build(specs, (2,))
        weighted = Distribution("libmemcached-weighted", "one_at_a_time").build(specs[:2])
        for key in sampleKeys(100):
            self.assertEqual(during.locate(key), weighted.locate(key))

    def test_oneServer(self) -> None:
        """
        One server gets all keys, and nobody does if it is down.
        """
        for name, scheme in SCHEMES.items():
            keyMap = Distribution(name).build(THREE[:1])
            self.assertEqual((keyMap.locate(b"a"), keyMap.shares()), (0, [1.0]))
            keyMap = Distribution(name).build(THREE[:1], (0,))
            self.assertEqual(keyMap.locate(b"a"), 0 if scheme.whenDown is WhenDown.KEPT else NOBODY, name)
