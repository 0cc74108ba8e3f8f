# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.changes}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.changes import Plan, comparison, differences, plan, serversChanged, summary
from txconnpool.config.settings import ConfigError, PoolSettings, Settings

A = PoolSettings(name="a")
B = PoolSettings(name="b", listen=("tcp:2",))


class DifferencesTests(SynchronousTestCase):
    """
    Tests for L{differences}.
    """

    def test_none(self) -> None:
        """
        Equal settings have no differences. The order of pools does not matter.
        """
        self.assertEqual(list(differences(Settings(pools=(A, B)), Settings(pools=(B, A)))), [])

    def test_values(self) -> None:
        """
        The values before and after are written as in an ini file. C{none} stands for no value.
        """
        old = Settings(pools=(A,), drainTimeout=0.5)
        pool = replace(A, maxItemSize=2 << 20, distribution="round-robin")
        lines = [
            "drain-timeout 500ms -> 5",
            "pool a: distribution none -> round-robin",
            "pool a: max-item-size 1m -> 2m",
        ]
        self.assertEqual(sorted(differences(old, Settings(pools=(pool,)))), lines)

    def test_many(self) -> None:
        """
        A setting with several values has a line for each value that is new or gone. Their order does not matter.
        """
        old = Settings(pools=(replace(A, listen=("tcp:1", "tcp:2", "tcp:3")),))
        new = Settings(pools=(replace(A, listen=("tcp:3", "tcp:1", "tcp:4")),))
        self.assertEqual(list(differences(old, new)), ["pool a: listen + tcp:4", "pool a: listen - tcp:2"])

    def assertServers(self, old: str, new: str, *expected: str, **values: Any) -> None:
        """
        Assert that a change of servers, one for each word and with commas for spaces, has these lines.
        """
        before, after = (
            Settings(pools=(replace(A, upstream=tuple(word.replace(",", " ") for word in each.split()), **values),))
            for each in (old, new)
        )
        self.assertEqual(list(differences(before, after)), [f"pool a: {line}" for line in expected])

    def test_servers(self) -> None:
        """
        Servers are added, removed and changed.
        """
        self.assertServers("tcp:a:1 tcp:b:1", "tcp:b:1 tcp:c:1", "upstream + tcp:c:1", "upstream - tcp:a:1")
        self.assertServers("tcp:a:1 tcp:b:1", "tcp:a:1,weight=2 tcp:b:1", "upstream tcp:a:1 -> tcp:a:1 weight=2")
        line = "upstream tcp:a:1 weight=2 label=x -> tcp:a:1 weight=2"
        self.assertServers("tcp:a:1,weight=2,label=x tcp:b:1", "tcp:a:1,weight=2 tcp:b:1", line)
        self.assertServers("tcp:a:1,weight=2,label=x", "tcp:a:1,,label=x,weight=2.0")
        self.assertServers("tls:a:1:trustRoots=/x", "tls:a:1:trustRoots=/y",
                           "upstream tls:a:1:trustRoots=/x -> tls:a:1:trustRoots=/y")  # fmt: skip

    def test_sources(self) -> None:
        """
        Sources of servers are added and removed, and so are the servers that were found there.
        """
        self.assertServers("dns:a:1 dns:b:1", "dns:b:1 srv:c", "upstream + srv:c", "upstream - dns:a:1")
        settings = PoolSettings(name="a", upstream=("dns:a:1",))
        found = [tuple(("dns:a:1", f"tcp:{host}:1") for host in hosts) for hosts in ("xy", "yz")]
        self.assertEqual(
            list(serversChanged(replace(settings, found=found[0]), replace(settings, found=found[1]))),
            ["upstream + tcp:z:1", "upstream - tcp:x:1"],
        )

    def test_orderOfServers(self) -> None:
        """
        The order of servers matters only if a server is its position.
        """
        line = "upstream: another order of servers, on which the distribution libmemcached depends"
        self.assertServers("tcp:a:1 tcp:b:1", "tcp:b:1 tcp:a:1", line, distribution="libmemcached")
        self.assertServers("tcp:a:1 tcp:b:1", "tcp:b:1 tcp:a:1", distribution="twemproxy")
        self.assertServers(
            "tcp:a:1 tcp:b:1 tcp:c:1", "tcp:a:1 tcp:c:1", "upstream - tcp:b:1", distribution="libmemcached"
        )

    def test_distribution(self) -> None:
        """
        Settings of the distribution are compared like any other.
        """
        old = replace(A, upstream=("tcp:a:1", "tcp:b:1"))
        new = replace(old, distribution="twemproxy", hash="murmur", onFailure="rehash", hashTag="{}")
        self.assertEqual(
            list(differences(Settings(pools=(old,)), Settings(pools=(new,)))),
            [
                "pool a: distribution none -> twemproxy",
                "pool a: hash none -> murmur",
                "pool a: hash-tag none -> {}",
                "pool a: on-failure fail -> rehash",
            ],
        )

    def test_pools(self) -> None:
        """
        A pool that is new or gone has one line.
        """
        self.assertEqual(
            list(differences(Settings(pools=(A,)), Settings(pools=(B,)))), ["pool b: added", "pool a: removed"]
        )


class ComparisonTests(SynchronousTestCase):
    """
    Tests for L{comparison}.
    """

    def compare(self, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
        """
        Compare two settings of a pool.
        """
        return comparison(*(Settings(pools=(PoolSettings(name="a", **each),)) for each in (old, new)))

    def test_same(self) -> None:
        """
        Keys stay with the same servers, and with one server they always do.
        """
        servers = ("tcp:a:1", "tcp:b:1")
        lines = ["no setting changes", "pool a: 0.0% of the keys get another server"]
        self.assertEqual(self.compare({"upstream": servers}, {"upstream": servers}), lines)
        self.assertEqual(self.compare({}, {}), lines)

    def test_moved(self) -> None:
        """
        The share of the keys that get another server follows the settings that change.
        """
        servers = tuple(f"tcp:{host}:1" for host in "abc")
        added, moved = self.compare({"upstream": servers}, {"upstream": (*servers, "tcp:e:1")})
        self.assertEqual(added, "pool a: upstream + tcp:e:1")
        self.assertRegex(moved, r"^pool a: 2\d\.\d% of the keys get another server$")
        order, moved = self.compare(
            *({"upstream": each, "distribution": "libmemcached"} for each in (servers, servers[::-1]))
        )
        self.assertIn("another order of servers", order)
        self.assertRegex(moved, r"^pool a: 6\d\.\d% ")
        _, _, moved = self.compare({"upstream": servers[:1]}, {"upstream": servers[1:2]})
        self.assertEqual(moved, "pool a: 100.0% of the keys get another server")

    def test_unknown(self) -> None:
        """
        Nothing is known of equal servers, of pools that are new, and of servers that are looked up.
        """
        equal = {"upstream": ("tcp:a:1", "tcp:b:1"), "distribution": "round-robin"}
        self.assertEqual(self.compare(equal, equal), ["no setting changes"])
        self.assertEqual(comparison(Settings(pools=(A,)), Settings(pools=(B,))), ["pool b: added", "pool a: removed"])
        self.assertEqual(
            self.compare({"upstream": ("tcp:a:1", "tcp:b:1")}, {"upstream": ("dns:a:1",)})[-1],
            "pool a: which keys get another server depends on dns:a:1, which are not looked up now",
        )
        self.assertEqual(self.compare({"upstream": ("dns:a:1",)}, {"upstream": ("dns:a:1",)}), ["no setting changes"])

    def test_restart(self) -> None:
        """
        Settings that need a restart are marked.
        """
        lines = comparison(Settings(pools=(A,)), Settings(pools=(A,), workers=2))
        self.assertEqual(lines[0], "workers 1 -> 2: needs a restart")


class PlanTests(SynchronousTestCase):
    """
    Tests for L{plan}.
    """

    def plan(self, old: Settings, new: Settings, *failed: tuple[str, str]) -> Plan:
        """
        Compare settings of a process that listens on all its addresses except those that have failed.
        """
        addresses = [(pool.name, description) for pool in old.pools for description in pool.listen]
        return plan(old, new, [address for address in addresses if address not in failed])

    def test_protocol(self) -> None:
        """
        A pool keeps its protocol: its clients and connections would go on with the old one.
        """
        new = Settings(pools=(replace(A, protocol="redis"), B))
        error = self.assertRaises(ConfigError, plan, Settings(pools=(A,)), new, [])
        self.assertEqual(
            str(error),
            "pool 'a': protocol memcache -> redis: a pool keeps its protocol while it runs; expected another name for "
            "the pool, or a restart",
        )
        self.assertEqual(comparison(Settings(pools=(A,)), new), [f"a reload is refused: {error}"])

    def test_database(self) -> None:
        """
        It keeps its database too: its connections have the old one.
        """
        old = Settings(pools=(replace(A, protocol="redis"),))
        new = Settings(pools=(replace(A, protocol="redis", database=3),))
        error = self.assertRaises(ConfigError, plan, old, new, [])
        self.assertIn("database 0 -> 3: a pool keeps its database while it runs", str(error))

    def test_same(self) -> None:
        """
        The same settings keep all listeners.
        """
        settings = Settings(pools=(A, B))
        same = self.plan(settings, settings)
        self.assertEqual(same.kept, (("a", "tcp:11212:interface=127.0.0.1"), ("b", "tcp:2")))
        self.assertEqual((same.opened, same.moved, same.closed, same.removed), ((), (), (), ()))
        self.assertEqual((same.settings, same.changes, same.restarts), (settings, (), ()))

    def test_listeners(self) -> None:
        """
        An address that is new is opened, and one that no pool has any more is closed.
        """
        old = Settings(pools=(replace(A, listen=("tcp:1", "tcp:2")),))
        change = self.plan(old, Settings(pools=(replace(A, listen=("tcp:2", "tcp:3")),)))
        self.assertEqual((change.opened, change.kept), ((("a", "tcp:3"),), (("a", "tcp:2"),)))
        self.assertEqual((change.moved, change.closed), ((), (("a", "tcp:1"),)))

    def test_notListening(self) -> None:
        """
        An address that could not be listened on before is opened now.
        """
        settings = Settings(pools=(replace(A, listen=("tcp:1", "tcp:2")),))
        change = self.plan(settings, settings, ("a", "tcp:2"))
        self.assertEqual((change.opened, change.kept), ((("a", "tcp:2"),), (("a", "tcp:1"),)))

    def test_moved(self) -> None:
        """
        An address that another pool gets is moved, not closed and opened, so that it is listened on all the time.
        """
        old = Settings(pools=(replace(A, listen=("tcp:1",)), B))
        new = Settings(pools=(replace(A, listen=("tcp:2",)), replace(B, listen=("tcp:1",))))
        change = self.plan(old, new)
        self.assertEqual(change.moved, (("tcp:2", "b", "a"), ("tcp:1", "a", "b")))
        self.assertEqual((change.opened, change.kept, change.closed), ((), (), ()))

    def test_pools(self) -> None:
        """
        The addresses of a pool that is removed are closed, or move to a new pool.
        """
        c = replace(A, name="c", listen=("tcp:2", "tcp:4"))
        change = self.plan(Settings(pools=(A, replace(B, listen=("tcp:2", "tcp:3")))), Settings(pools=(A, c)))
        self.assertEqual(change.removed, ("b",))
        self.assertEqual(change.moved, (("tcp:2", "b", "c"),))
        self.assertEqual((change.opened, change.closed), ((("c", "tcp:4"),), (("b", "tcp:3"),)))
        self.assertEqual(change.changes, ("pool c: added", "pool b: removed"))

    def test_anyPort(self) -> None:
        """
        Several pools may have an address with port 0, and each has a port of its own. Each of these ports is moved or
        closed once.
        """
        old = Settings(pools=tuple(replace(A, name=name, listen=("tcp:0", f"tcp:{name}")) for name in "78"))
        new = Settings(pools=(*(replace(A, name=name, listen=(f"tcp:{name}",)) for name in "78"), B))
        self.assertEqual(self.plan(old, new).closed, (("7", "tcp:0"), ("8", "tcp:0")))
        new = Settings(pools=(*new.pools[:2], replace(B, listen=("tcp:0",))))
        self.assertEqual(self.plan(old, new).closed, (("8", "tcp:0"),))
        self.assertEqual(self.plan(old, new).moved, (("tcp:0", "7", "b"),))

    def test_fixed(self) -> None:
        """
        A setting that only a restart can change keeps its value, and is listed apart.
        """
        old = Settings(pools=(A,), stats="tcp:9")
        change = self.plan(old, replace(old, workers=2, stats=None, drainTimeout=1.0))
        self.assertEqual(change.settings, replace(old, drainTimeout=1.0))
        self.assertEqual(change.changes, ("drain-timeout 5 -> 1",))
        self.assertEqual(change.restarts, ("workers 1 -> 2: needs a restart", "stats tcp:9 -> none: needs a restart"))

    def test_summary(self) -> None:
        """
        Only what takes effect counts as changed; what needs a restart is counted apart.
        """
        old = Settings(pools=(A,))
        for wanted, text in (
            (old, "0 changed"),
            (replace(old, drainTimeout=1.0), "1 changed"),
            (replace(old, stats="tcp:9"), "0 changed, 1 needs a restart"),
            (replace(old, drainTimeout=1.0, stats="tcp:9", workers=2), "1 changed, 2 need a restart"),
        ):
            change = self.plan(old, wanted)
            self.assertEqual(summary([*change.changes, *change.restarts]), text)
