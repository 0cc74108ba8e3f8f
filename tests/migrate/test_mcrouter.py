# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.mcrouter}.
"""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.migrate.inis import load, settings
from txconnpool.migrate.document import Document, MigrationError
from txconnpool.migrate.endpoints import Offset
from txconnpool.migrate.handles import HASHES_WITHOUT, POOL_KEYS, ROUTE_KEYS, WITHOUT_SERVERS, WRAPPERS
from txconnpool.migrate.mcrouter import convert
from txconnpool.migrate.sections import Migration

A = {"servers": ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"]}
B = {"servers": ["10.0.1.1:11211"]}
C = {"servers": ["10.0.2.1:11211"]}


def migrate(route: Any, offset: int = 0, **pools: Any) -> Migration:
    """
    Convert a configuration with one route, and with the pools C{A}, C{B}, C{C} and others.
    """
    return migrateText(json.dumps({"pools": {"A": A, "B": B, "C": C, **pools}, "route": route}, indent=1), offset)


def migrateText(text: str, offset: int = 0) -> Migration:
    """
    Convert a configuration.
    """
    return convert(Document("m.json", text), Offset(offset), 5000)


class PoolTests(SynchronousTestCase):
    """
    Tests for C{PoolRoute} and its pools.
    """

    def refuse(self, expected: str, route: Any, **pools: Any) -> None:
        """
        Check the error of a configuration.
        """
        error = self.assertRaises(MigrationError, migrate, route, **pools)
        self.assertRegex(str(error), rf"^m\.json:[0-9]+: {expected}$")

    def test_short(self) -> None:
        """
        A pool has its servers in the same order, and Ch3.
        """
        migration = migrate("PoolRoute|A")
        self.assertEqual(
            settings(migration),
            {
                "A": {
                    "listen": "tcp:5000:interface=127.0.0.1",
                    "distribution": "mcrouter",
                    "upstream": ["tcp:10.0.0.1:11211", "tcp:10.0.0.2:11211", "tcp:10.0.0.3:11211"],
                }
            },
        )
        self.assertEqual(migration.notes, [])
        self.assertEqual(settings(migrate({"type": "PoolRoute", "pool": "A"})), settings(migration))

    def test_comments(self) -> None:
        """
        The comments have the lines of the configuration.
        """
        text = migrateText('{\n "pools": {"A":\n  {"servers": [\n "a:1" // first\n]}},\n "route": "PoolRoute|A"}').ini(
            []
        )
        self.assertIn('# line 2: "pools": {"A":\n[pool:A]\n', text)
        self.assertIn("    # a:1\n    tcp:a:1\n", text)

    def test_hashes(self) -> None:
        """
        Hash functions with an equivalent are taken over.
        """
        for hash, expected in (
            ("Ch3", {"distribution": "mcrouter"}),
            ("Crc32", {"distribution": "mcrouter", "hash": "crc32"}),
            ({"hash_func": "Crc32"}, {"distribution": "mcrouter", "hash": "crc32"}),
        ):
            found = settings(migrate({"type": "PoolRoute", "pool": "A", "hash": hash}))["A"]
            self.assertEqual({key: found[key] for key in expected}, expected)

    def test_salt(self) -> None:
        """
        A pool with a salt is commented out, unless it has nothing to hash.
        """
        route = {"type": "PoolRoute", "pool": "A", "hash": {"salt": "pepper"}}
        migration = migrate(route)
        self.assertEqual(settings(migration), {})
        self.assertRegex(migration.notes[0], "hashed with the salt pepper, for which there is no setting")
        self.assertEqual(list(settings(migrate({**route, "pool": "B"}))), ["B"])

    def test_weights(self) -> None:
        """
        Weights of the pool mean WeightedCh3. Missing ones are 0.5, and more than there are servers are left out.
        """
        for weights, expected in (
            ([1, 0, 0.25], ["1", "0", "0.25"]),
            ([1.0], ["1", "0.5", "0.5"]),
            ([1, 1, 1, 100], ["1", "1", "1"]),
        ):
            for migration in (
                migrate("PoolRoute|D", D={**A, "weights": weights}),
                migrate(
                    {"type": "PoolRoute", "pool": "D", "hash": {"hash_func": "WeightedCh3", "weights": weights}}, D=A
                ),
            ):
                found = settings(migration)["D"]
                self.assertEqual(found["distribution"], "mcrouter")
                self.assertEqual([line.partition(" weight=")[2] for line in found["upstream"]], expected)
        found = settings(migrate({"type": "PoolRoute", "pool": "D", "hash": "Ch3"}, D={**A, "weights": [1, 1, 1]}))["D"]
        self.assertEqual(found["upstream"], [f"tcp:{each}" for each in A["servers"]])

    def test_rendezvous(self) -> None:
        """
        The tags of a rendezvous hash are the labels.
        """
        pool = {**A, "tags": ["x", "y", "z"], "weights": [1, 0.5, 1]}
        found = settings(migrate({"type": "PoolRoute", "pool": "D", "hash": "Rendezvous"}, D=pool))["D"]
        self.assertEqual(
            (found["distribution"], found["upstream"][1]), ("mcrouter-rendezvous", "tcp:10.0.0.2:11211 label=y")
        )
        found = settings(migrate({"type": "PoolRoute", "pool": "D", "hash": "WeightedRendezvous"}, D=pool))["D"]
        self.assertEqual(found["upstream"][1], "tcp:10.0.0.2:11211 weight=0.5 label=y")

    def test_hashesWithout(self) -> None:
        """
        A pool with another hash function is commented out, because its keys would move.
        """
        for name in (*HASHES_WITHOUT, "Unheard"):
            migration = migrate({"type": "PoolRoute", "pool": "A", "hash": name})
            self.assertEqual(settings(migration), {})
            self.assertRegex(migration.notes[0], f"pool A: is commented out: the hash function {name} ")
        self.assertEqual(list(settings(migrate({"type": "PoolRoute", "pool": "B", "hash": "Latest"}))), ["B"])

    def test_timeouts(self) -> None:
        """
        Timeouts are milliseconds; the one of the connection is the other one by default.
        """
        found = settings(migrate("PoolRoute|D", D={**A, "server_timeout": 250}))["D"]
        self.assertEqual((found["connect-timeout"], found["request-timeout"]), ("250ms", "250ms"))
        found = settings(migrate("PoolRoute|D", D={**A, "server_timeout": 2000, "connect_timeout": 30}))["D"]
        self.assertEqual((found["connect-timeout"], found["request-timeout"]), ("30ms", "2"))

    def test_servers(self) -> None:
        """
        Addresses have several forms.
        """
        servers = ["[::1]:1", "unix:/tmp/a.sock", "a:2:ascii", "b:3:ascii:tls", "c:4:ascii:plain:compressed"]
        migration = migrate("PoolRoute|D", D={"servers": servers})
        self.assertEqual(
            settings(migration)["D"]["upstream"],
            [r"tcp:\:\:1:1", "unix:/tmp/a.sock", "tcp:a:2", "tls:b:3", "tcp:c:4"],
        )
        self.assertRegex(migration.notes[0], "compresses values")

    def test_encrypted(self) -> None:
        """
        An encrypted pool has C{tls} endpoints.
        """
        for key, value, expected in (
            ("security_mech", "tls", "tls:a:1"),
            ("security_mech", "plain", "tcp:a:1"),
            ("use_ssl", True, "tls:a:1"),
        ):
            migration = migrate("PoolRoute|D", D={"servers": ["a:1"], key: value})
            self.assertEqual(settings(migration)["D"]["upstream"], [expected])
            self.assertEqual(len(migration.notes), expected.startswith("tls"))

    def test_protocol(self) -> None:
        """
        A pool of another protocol is commented out.
        """
        self.assertEqual(list(settings(migrate("PoolRoute|D", D={**A, "protocol": "ascii"}))), ["D"])
        migration = migrate("PoolRoute|D", D={**A, "protocol": "caret"})
        self.assertEqual(settings(migration), {})
        self.assertIn("the protocol caret is mcrouter's own", migration.notes[0])

    def test_inherit(self) -> None:
        """
        A pool may inherit from another.
        """
        found = settings(migrate("PoolRoute|D", D={"inherit": "E", "server_timeout": 1}, E={**B, "server_timeout": 9}))
        self.assertEqual((found["D"]["upstream"], found["D"]["request-timeout"]), (["tcp:10.0.1.1:11211"], "1ms"))
        self.refuse("inherit: D: expected the name of another pool", "PoolRoute|D", D={"inherit": "D"})
        self.refuse("inherit: Z: expected the name of another pool", "PoolRoute|D", D={"inherit": "Z"})

    def test_inline(self) -> None:
        """
        A pool may stand in its route.
        """
        self.assertEqual(list(settings(migrate({"type": "PoolRoute", "pool": {"name": "D", **A}}))), ["D"])

    def test_keys(self) -> None:
        """
        Other keys of pools and routes are noted, with what they mean.
        """
        for key in POOL_KEYS:
            self.assertRegex(migrate("PoolRoute|D", D={**A, key: 1}).notes[0], f": pool D: {key} ")
        for key in ROUTE_KEYS:
            self.assertRegex(migrate({"type": "PoolRoute", "pool": "A", key: 1}).notes[0], f": PoolRoute A: {key} ")
        self.assertRegex(migrate("PoolRoute|D", D={**A, "x": 1}).notes[0], ": pool D: x is not known here")

    def test_wrong(self) -> None:
        """
        What mcrouter refuses is an error with its line.
        """
        self.refuse("pool Z: is not in pools; expected one of: A, B, C", "PoolRoute|Z")
        self.refuse("has no pool; expected the key pool in .*", {"type": "PoolRoute"})
        self.refuse("has no servers; expected the key servers in .*", "PoolRoute|D", D={"protocol": "ascii"})
        self.refuse("servers: a: port : expected a number from 1 to 65535", "PoolRoute|D", D={"servers": ["a"]})
        self.refuse('servers: "": expected HOST:PORT, .*', "PoolRoute|D", D={"servers": [""]})
        self.refuse("servers: {type: .*}: expected HOST:PORT, .*", "PoolRoute|D", D={"servers": [{"type": "x"}]})
        self.refuse("servers: a:1:caret: the protocol caret .*", "PoolRoute|D", D={"servers": ["a:1:caret"]})
        self.refuse("server_timeout: 1.5: expected a whole number", "PoolRoute|D", D={**A, "server_timeout": 1.5})
        self.refuse("weights: 2: expected a number from 0 to 1", "PoolRoute|D", D={**A, "weights": [2]})
        self.refuse('weights: "1": expected a number from 0 to 1', "PoolRoute|D", D={**A, "weights": ["1"]})
        self.refuse(
            "has no weights; expected the key weights in .*", {"type": "PoolRoute", "pool": "A", "hash": "WeightedCh3"}
        )
        self.refuse(
            "tags: 1 of them; expected one for each server",
            {"type": "PoolRoute", "pool": "A", "hash": {"hash_func": "Rendezvous", "tags": ["x"]}},
        )
        self.refuse(
            "pool A: 3 servers have the label 'x': each must have its own",
            {"type": "PoolRoute", "pool": "A", "hash": {"hash_func": "Rendezvous", "tags": ["x", "x", "x"]}},
        )

    def test_port(self) -> None:
        """
        There may be no port left.
        """
        error = self.assertRaises(MigrationError, migrate, "PoolRoute|A", offset=60600)
        self.assertRegex(str(error), r"^m\.json:3: port 5000 plus 60600 is 65600; expected a port from 1 to 65535")


class RouteTests(SynchronousTestCase):
    """
    Tests for the other routes.
    """

    def test_failover(self) -> None:
        """
        The second pool of a failover is that of the setting, and has a listener of its own.
        """
        inOrder = {"type": "FailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}
        short = {"type": "FailoverWithExptimeRoute", "normal": "PoolRoute|A", "failover": ["PoolRoute|B"]}
        for route, expire in (
            (inOrder, None),
            (short, "60"),
            ({**short, "failover_exptime": 5}, "5"),
            ({**short, "failover_exptime": 0}, None),
        ):
            migration = migrate(route)
            found = settings(migration)
            self.assertEqual([pool["listen"][:9] for pool in found.values()], ["tcp:5000:", "tcp:5001:"])
            self.assertEqual(list(found), ["A", "B"])
            self.assertEqual(migration.notes, [])
            self.assertEqual((found["A"]["on-failure"], found["A"]["failover"]), ("failover", "B"))
            self.assertEqual(found["A"].get("failover-expire"), expire)
            self.assertNotIn("failover", found["B"])

    def test_failoverOff(self) -> None:
        """
        There is no failover to a pool that is commented out.
        """
        other = {"type": "PoolRoute", "pool": "D", "hash": {"salt": "s"}}
        migration = migrate({"type": "FailoverRoute", "children": ["PoolRoute|A", other]}, D=A)
        self.assertNotIn("failover", settings(migration)["A"])
        self.assertIn("pool A: its failover pool D is commented out.", migration.notes[-1])

    def test_failoverMore(self) -> None:
        """
        There is one failover pool. Options of failover are noted.
        """
        migration = migrate(
            {
                "type": "FailoverRoute",
                "children": ["PoolRoute|A", "PoolRoute|B", "PoolRoute|C"],
                "failover_errors": ["tko"],
            }
        )
        self.assertEqual(list(settings(migration)), ["A", "B"])
        notes = "".join(migration.notes)
        self.assertEqual(len(migration.notes), 2)
        self.assertRegex(notes, "failover_errors says which errors")
        self.assertRegex(notes, "one pool for failover, B. C is not used")
        for children in (["PoolRoute|A"], ["PoolRoute|A", "PoolRoute|A"]):
            found = settings(migrate({"type": "FailoverRoute", "children": children}))
            self.assertEqual(list(found), ["A"])

    def test_failoverNested(self) -> None:
        """
        A failover inside of another is left out.
        """
        inner = {"type": "FailoverRoute", "children": ["PoolRoute|B", "PoolRoute|C"]}
        migration = migrate({"type": "FailoverRoute", "children": ["PoolRoute|A", inner]})
        self.assertEqual(list(settings(migration)), ["A", "B"])
        self.assertRegex("".join(migration.notes), "a failover inside of another is left out")

    def test_wrappers(self) -> None:
        """
        Of each route with parts the main one is the first pool, and further ones have listeners of their own.
        """
        for name, wrapper in WRAPPERS.items():
            children = wrapper.main[0] == "children"
            route: dict[str, Any] = {"type": name}
            if children:
                route["children"] = ["PoolRoute|A", "PoolRoute|B"]
            else:
                route |= {wrapper.main[0]: "PoolRoute|A"} | dict.fromkeys(wrapper.others, "PoolRoute|B")
            migration = migrate(route)
            expected = ["A", "B"] if wrapper.others else ["A"]
            self.assertEqual(list(settings(migration)), expected, name)
            self.assertRegex(migration.notes[0], rf"^m\.json:[0-9]+: {name}: {re.escape(wrapper.meaning)}")
            error = self.assertRaises(MigrationError, migrate, {"type": name})
            self.assertIn(f"{name}: has no {wrapper.main[0]}", str(error))

    def test_one(self) -> None:
        """
        Of a route that sends to all of its pools, one pool is the same.
        """
        for route in ({"type": "AllSyncRoute", "children": ["PoolRoute|A"]}, "AllSyncRoute|PoolRoute|A"):
            migration = migrate(route)
            self.assertEqual((list(settings(migration)), migration.notes), (["A"], []))

    def test_operations(self) -> None:
        """
        Commands that go elsewhere are noted, those that go to the same pool are not.
        """
        migration = migrate(
            {
                "type": "OperationSelectorRoute",
                "default_policy": "PoolRoute|A",
                "operation_policies": {
                    "delete": {"type": "AllSyncRoute", "children": ["PoolRoute|A", "PoolRoute|B"]},
                    "get": "PoolRoute|A",
                },
            }
        )
        self.assertEqual(list(settings(migration)), ["A", "B"])
        self.assertEqual(len(migration.notes), 2)
        self.assertRegex(migration.notes[1], "mcrouter sends delete to A, B, everything else to A")
        migration = migrate({"type": "OperationSelectorRoute", "default_policy": "PoolRoute|A"})
        self.assertEqual((list(settings(migration)), migration.notes), (["A"], []))

    def test_prefixes(self) -> None:
        """
        The pools of prefixes of keys get listeners of their own.
        """
        migration = migrate(
            {
                "type": "PrefixSelectorRoute",
                "policies": {"b": "PoolRoute|B", "c": "NullRoute"},
                "wildcard": "PoolRoute|A",
            }
        )
        found = settings(migration)
        self.assertEqual([pool["listen"][:9] for pool in found.values()], ["tcp:5000:", "tcp:5001:"])
        self.assertEqual(list(found), ["A", "B"])
        self.assertIn("# The listener for keys that begin with b;", migration.ini([]))
        self.assertEqual(len(migration.notes), 3)
        self.assertRegex(
            migration.notes[0], "keys that begin with b to the pool B. txconnpool does not choose pools by"
        )
        self.assertRegex(migration.notes[2], "keys that begin with c to no pool")
        inner = {"type": "FailoverRoute", "children": [{"type": "PrefixSelectorRoute", "wildcard": "PoolRoute|A"}]}
        error = self.assertRaises(MigrationError, migrate, inner)
        self.assertIn("mcrouter allows it at the top only", str(error))

    def test_aliases(self) -> None:
        """
        Routes with a prefix are noted, unless it is the default.
        """
        for routes, count in (
            (
                [
                    {"aliases": ["/./.", "/a/b/"], "route": "PoolRoute|A"},
                    {"aliases": ["/c/d/"], "route": "PoolRoute|A"},
                ],
                2,
            ),
            ({"/a/b/": "PoolRoute|A"}, 1),
            ({"/././": "PoolRoute|A"}, 0),
        ):
            migration = migrateText(json.dumps({"pools": {"A": A}, "routes": routes}))
            self.assertEqual(list(settings(migration)), ["A"])
            self.assertEqual(len(migration.notes), count)
        self.assertIn(
            "# The same listener for /c/d/.",
            migrateText(
                json.dumps(
                    {
                        "pools": {"A": A},
                        "routes": [
                            {"aliases": ["/a/b/"], "route": "PoolRoute|A"},
                            {"aliases": ["/c/d/"], "route": "PoolRoute|A"},
                        ],
                    }
                )
            ).ini([]),
        )

    def test_hashRoute(self) -> None:
        """
        A hash over single servers is a pool; a hash over pools has no equivalent.
        """
        for children in (["PoolRoute|B", "PoolRoute|C"], "Pool|D"):
            route = {"type": "HashRoute", "children": children, "hash_func": "Crc32", "name": "all"}
            found = settings(migrate(route, D={"servers": [*B["servers"], *C["servers"]]}))["all"]
            self.assertEqual(found["upstream"], ["tcp:10.0.1.1:11211", "tcp:10.0.2.1:11211"])
            self.assertEqual(found["hash"], "crc32")
        self.assertEqual(list(settings(migrate("HashRoute|PoolRoute|A"))), ["A"])
        migration = migrate({"type": "HashRoute", "children": ["PoolRoute|A", "PoolRoute|B"]})
        self.assertEqual(settings(migration), {})
        self.assertEqual(migration.sections[0].name, "A-B")
        self.assertRegex(migration.notes[0], "hash over pools with several servers has no equivalent")
        error = self.assertRaises(MigrationError, migrate, {"type": "HashRoute", "children": "NullRoute"})
        self.assertIn("HashRoute: has no children", str(error))

    def test_named(self) -> None:
        """
        Routes may have names.
        """
        handle = {"type": "PoolRoute", "pool": "A", "name": "first", "hash": "Crc32"}
        for handles in ([handle], {"first": handle}):
            text = json.dumps({"pools": {"A": A}, "named_handles": handles, "route": "AllSyncRoute|first"})
            self.assertEqual(settings(migrateText(text))["A"]["hash"], "crc32")
        text = json.dumps({"named_handles": {"x": "AllSyncRoute|x"}, "route": "x"})
        error = self.assertRaises(MigrationError, migrateText, text)
        self.assertRegex(str(error), "the routes refer to each other in a circle")

    def test_without(self) -> None:
        """
        Routes that have no servers, or are not known, are noted.
        """
        for name in WITHOUT_SERVERS:
            migration = migrate(name)
            self.assertEqual(migration.sections, [])
            self.assertRegex(migration.notes[0], f"{name}: .*there is no pool for it")
        self.assertEqual(migrate("ErrorRoute|reject").sections, [])
        self.assertRegex(migrate("FuzzyRoute|x").notes[0], "FuzzyRoute: this route is not known here")

    def test_macros(self) -> None:
        """
        Macros are an error that says where the expanded configuration is.
        """
        for config in (
            {"macros": {}, "route": "PoolRoute|A"},
            {"pools": {"A": "@import(file:/a)"}, "route": "PoolRoute|A"},
            {"pools": {"%name%": A}, "route": "PoolRoute|A"},
            {"pools": {"@if(1,a,b)": A}, "route": "PoolRoute|A"},
        ):
            error = self.assertRaises(MigrationError, migrateText, json.dumps(config, indent=1))
            self.assertRegex(str(error), r"^m\.json:[0-9]: .*__mcrouter__\.preprocessed_config")

    def test_loads(self) -> None:
        """
        The settings can be used.
        """
        servers = ["[::1]:1", "unix:/tmp/a.sock", "a:2"]
        for route in (
            "PoolRoute|D",
            {"type": "FailoverRoute", "children": ["PoolRoute|D", "PoolRoute|A"]},
            {"type": "PoolRoute", "pool": "D", "hash": {"hash_func": "WeightedCh3", "weights": [1 / 3, 1, 0]}},
            {"type": "PoolRoute", "pool": "D", "hash": {"hash_func": "Rendezvous", "tags": ["x", "y", "z"]}},
            {"type": "PoolRoute", "pool": "D", "hash": "Crc32"},
        ):
            pool, *_ = load(migrate(route, D={"servers": servers, "server_timeout": 1}))
            self.assertEqual((pool.name, len(pool.servers)), ("D", 3))

    def test_top(self) -> None:
        """
        There is one of the keys C{route} and C{routes}, and other keys have no meaning.
        """
        for config in ({}, {"route": "NullRoute", "routes": {}}):
            error = self.assertRaises(MigrationError, migrateText, json.dumps(config))
            self.assertEqual(str(error), "m.json:1: expected one of the keys route and routes")
        migration = migrateText('{"routing_options": {}, "route": "NullRoute"}')
        self.assertIn("m.json:1: routing_options: has no meaning here.", migration.notes)
