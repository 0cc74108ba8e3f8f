# -*- test-case-name: tests.migrate.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The routes of mcrouter's configuration: which pools each of them uses.
"""

from __future__ import annotations

from dataclasses import replace

from txconnpool.migrate.document import Document, Node
from txconnpool.migrate.handles import ROUTE_KEYS, WITHOUT_SERVERS, WRAPPERS
from txconnpool.migrate.pools import Pools, hashed
from txconnpool.migrate.shards import Shards, Wrong, field, names, text, unused, whole

#: Seconds that values are kept in a failover pool, where C{FailoverWithExptimeRoute} does not say.
_FAILOVER_EXPIRY = 60

#: The keys that the text after C{|} stands for; it is C{children} for others.
_SHORT = {"PoolRoute": "pool", "Pool": "pool"}


class Routes:
    """
    Finds the pools that routes use.

    @ivar notes: what has no equivalent: lines and texts.
    """

    def __init__(self, document: Document) -> None:
        root = document.root
        self.notes: list[tuple[int, str]] = []
        self._pools = Pools(document, fieldsOf(root, "pools"), self.note)
        self._named = _handles(root)
        self._depth = 0

    def note(self, node: Node, text: str) -> None:
        """
        Note that something has no equivalent.

        @param text: what it means, and what to do instead.
        """
        if (node.line, text) not in self.notes:
            self.notes.append((node.line, text))

    def resolve(self, node: Node) -> list[Shards]:
        """
        Find the pools that a route uses.

        @return: the first one gets the requests; the other ones must be used by the clients themselves.
        """
        self._depth += 1
        if self._depth > 100:
            raise Wrong(node, "the routes refer to each other in a circle")
        try:
            if isinstance(node.value, list):
                return [shards for each in node.value for shards in self.resolve(each)]
            if node.text is not None:
                return self._resolveText(node, node.text)
            return self._resolveType(node, text(node, "type"))
        finally:
            self._depth -= 1

    def _resolveText(self, node: Node, text: str) -> list[Shards]:
        if text in self._named:
            return self.resolve(self._named[text])
        kind, bar, rest = text.partition("|")
        inner = Node(node.line, rest, quoted=True)
        key = WRAPPERS[kind].main[0] if kind in WRAPPERS else _SHORT.get(kind, "children")
        return self._resolveType(Node(node.line, {key: inner} if bar else {}), kind)

    def _resolveType(self, node: Node, kind: str) -> list[Shards]:
        if kind == "PoolRoute":
            return [self._pools.route(node)]
        if kind == "Pool":
            return self._pools.each(node)
        if kind == "HashRoute":
            return [self._hashRoute(node)]
        if kind in ("FailoverRoute", "FailoverWithExptimeRoute"):
            return self._failover(node, kind)
        if kind in ("OperationSelectorRoute", "PrefixPolicyRoute"):
            return self._operations(node, kind)
        if kind in WITHOUT_SERVERS:
            self.note(node, f"{kind}: {WITHOUT_SERVERS[kind]}. It has no servers, so there is no pool for it.")
            return []
        if kind in WRAPPERS:
            return self._wrapper(node, kind)
        if kind == "PrefixSelectorRoute":
            raise Wrong(node, "PrefixSelectorRoute inside of another route: mcrouter allows it at the top only")
        self.note(node, f"{kind}: this route is not known here, and is left out.")
        return []

    def _wrapper(self, node: Node, kind: str) -> list[Shards]:
        wrapper = WRAPPERS[kind]
        main = next((key for key in wrapper.main if key in node.fields), None)
        if main is None:
            raise Wrong(node, f"{kind}: has no {' or '.join(wrapper.main)}")
        found = self.resolve(node.fields[main])
        for key in wrapper.others:
            if key in node.fields and key != main:
                found += self.resolve(node.fields[key])
        if main != "children" or len(found) > 1:
            self.note(node, f"{kind}: {wrapper.meaning}")
        return found if wrapper.others else found[:1]

    def _operations(self, node: Node, kind: str) -> list[Shards]:
        default = self.resolve(node.fields["default_policy"]) if "default_policy" in node.fields else []
        others: dict[tuple[Shards, ...], list[str]] = {}
        for operation, each in fieldsOf(node, "operation_policies").items():
            others.setdefault(tuple(self.resolve(each)), []).append(operation)
        others.pop(tuple(default), None)
        for other, operations in others.items():
            self.note(
                node,
                f"{kind}: mcrouter sends {', '.join(operations)} to {names(other)}, everything else to "
                f"{names(default)}. Here all commands of a client go to the same pool: let the clients use another "
                "listener for these commands, or forbid them with deny-commands.",
            )
        return list(dict.fromkeys([*default, *(each for other in others for each in other)]))

    def _failover(self, node: Node, kind: str) -> list[Shards]:
        if kind == "FailoverRoute":
            found = self.resolve(field(node, "children"))
            expiry = None
        else:
            found = self.resolve(field(node, "normal"))[:1]
            found += self.resolve(node.fields["failover"]) if "failover" in node.fields else []
            expiry = whole(node, "failover_exptime", _FAILOVER_EXPIRY)
        unused(node, kind, ROUTE_KEYS, self.note)
        if len(found) < 2:
            return found
        first, second, *more = found
        if more:
            self.note(node, f"{kind}: here there is one pool for failover, {second.name}. {names(more)} is not used.")
        if first.failover is not None or second.failover is not None:
            self.note(node, f"{kind}: a failover inside of another is left out.")
        if first == second:
            self.note(node, f"{kind}: both pools are {first.name}, so there is no failover.")
            return [first]
        return [replace(first, failover=replace(second, failover=None), expiry=expiry)]

    def _hashRoute(self, node: Node) -> Shards:
        """
        A hash over routes with one server each is a pool.
        """
        children = self.resolve(field(node, "children"))
        if not children:
            raise Wrong(node, "HashRoute: has no children")
        several = [each.name for each in children if len(each.servers) != 1 or each.failover is not None]
        name = text(node, "name") if "name" in node.fields else "-".join(dict.fromkeys(each.name for each in children))
        if several and len(children) > 1:
            self.note(
                node,
                f"HashRoute: distributes keys among {names(children)}, each of which has several servers. Here a pool "
                "distributes keys among servers only. The pool is commented out: its servers are in the order of the "
                "file, but their keys are elsewhere.",
            )
        servers = tuple(server for each in children for server in each.servers)
        shards = Shards(
            name,
            node.line,
            servers,
            settings=children[0].settings,
            why="a hash over pools with several servers has no equivalent." if several and len(children) > 1 else "",
        )
        return hashed(shards, node) if len(children) > 1 else children[0]


def _handles(root: Node) -> dict[str, Node]:
    node = root.fields.get("named_handles")
    if node is None:
        return {}
    if node.fields:
        return node.fields
    return {each.fields["name"].text or "": each for each in node.items if "name" in each.fields}


def fieldsOf(node: Node, key: str) -> dict[str, Node]:
    """
    @return: the fields of a field; none if it does not exist.
    """
    return node.fields[key].fields if key in node.fields else {}
