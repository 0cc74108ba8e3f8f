# -*- test-case-name: tests.migrate.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Convert the JSON configuration of mcrouter.

Each route handle that sends keys to the servers of one pool becomes a pool here. mcrouter's other handles, which send a
request to several pools or choose the pool by key, have no equivalent: each of their pools gets a listener of its own.
"""

from __future__ import annotations

import re

from txconnpool.migrate.document import Document, Node
from txconnpool.migrate.endpoints import Offset, serverLine
from txconnpool.migrate.pools import DISTRIBUTIONS
from txconnpool.migrate.routes import Routes, fieldsOf
from txconnpool.migrate.sections import Migration, Section
from txconnpool.migrate.shards import Shards, Wrong, field
from txconnpool.routing.distribution import Distribution

_EXPAND = (
    "macros are not expanded here. A running mcrouter has the expanded configuration: "
    "`printf 'get __mcrouter__.preprocessed_config\\r\\nquit\\r\\n' | nc HOST PORT`"
)


def convert(document: Document, offset: Offset, firstPort: int) -> Migration:
    """
    Convert a configuration.

    @param document: the configuration.
    @param offset: how listeners are moved.
    @param firstPort: the port of the first pool. Further pools get the next ones.
    @raise MigrationError: mcrouter would refuse it, or it has macros.
    """
    migration = Migration(document)
    _Converter(migration, offset, firstPort).convert()
    document.check()
    return migration


class _Converter:
    """
    Walks through the routes that clients may use, and writes a section for each pool.
    """

    def __init__(self, migration: Migration, offset: Offset, firstPort: int) -> None:
        self._migration, self._document = migration, migration.document
        self._offset, self._port = offset, firstPort
        #: The sections that exist. Several routes may use the same.
        self._written: dict[Shards, Section] = {}
        self._routes = Routes(self._document)

    def convert(self) -> None:
        """
        Convert the whole configuration.
        """
        root = self._document.root
        for key, node in root.fields.items():
            if key in ("macros", "consts", "params"):
                self._document.problem(node.line, f"{key}: {_EXPAND}")
        self._findMacros(root)
        if self._document.problems:
            return
        try:
            self._convertRoutes(root)
        except Wrong as error:
            node, text = error.args
            self._document.problem(node.line, text)
        for line, text in self._routes.notes:
            self._migration.lost(line, None, text)
        for key, node in root.fields.items():
            if key not in ("pools", "route", "routes", "named_handles"):
                self._migration.lost(node.line, None, f"{key}: has no meaning here.")

    def _findMacros(self, node: Node) -> None:
        """
        Find what is not known before macros are expanded: calls (C{@import(...)}) and parameters (C{%name%}).
        """
        if node.text is not None:
            if node.quoted and (re.match(r"@\w+\(", node.text) or re.search(r"%\w+%", node.text)):
                self._document.problem(node.line, f"{node}: {_EXPAND}")
        elif isinstance(node.value, list):
            for each in node.value:
                self._findMacros(each)
        else:
            for key, each in node.fields.items():
                if re.match(r"@\w+\(", key) or re.search(r"%\w+%", key):
                    self._document.problem(each.line, f'"{key}": {_EXPAND}')
                self._findMacros(each)

    def _convertRoutes(self, root: Node) -> None:
        if ("route" in root.fields) == ("routes" in root.fields):
            raise Wrong(root, "expected one of the keys route and routes")
        if "route" in root.fields:
            self._top(root.fields["route"], "")
            return
        routes = root.fields["routes"]
        pairs = list(routes.fields.items())
        for each in routes.items if not routes.fields else []:
            aliases = ", ".join(alias.text or "" for alias in field(each, "aliases").items)
            pairs.append((aliases, field(each, "route")))
        for aliases, route in pairs:
            names = self._top(route, f" for {aliases}")
            if names and (len(pairs) > 1 or aliases not in ("", "/././")):
                self._routes.note(
                    route,
                    f"routes: mcrouter sends keys that begin with {aliases} to the pool {names[0]}, without that "
                    "prefix. txconnpool does not choose pools by key, and does not change keys: let the clients use "
                    "the listener of that pool, and leave the prefix out.",
                )

    def _top(self, route: Node, purpose: str) -> list[str]:
        """
        Convert a route that clients may choose.

        @return: the names of the sections of its pools. The first one is for keys without a prefix.
        """
        if "type" in route.fields and route.fields["type"].text == "PrefixSelectorRoute":
            found = self._top(route.fields["wildcard"], purpose) if "wildcard" in route.fields else []
            for prefix, each in fieldsOf(route, "policies").items():
                names = self._top(each, f" for keys that begin with {prefix}")
                self._routes.note(
                    each,
                    f"PrefixSelectorRoute: mcrouter sends keys that begin with {prefix} to "
                    f"{f'the pool {names[0]}' if names else 'no pool'}. txconnpool does not choose pools by key: let "
                    "the clients use the listener of that pool for them.",
                )
                found += names
            return found
        return [self._write(shards, purpose).name for shards in self._routes.resolve(route)]

    def _write(self, shards: Shards, purpose: str) -> Section:
        """
        Write the section of a pool, and that of its failover pool.
        """
        if shards in self._written:
            if purpose:
                self._written[shards].remark(f"The same listener{purpose}.")
            return self._written[shards]
        section = self._written[shards] = self._migration.section(shards.name)
        section.servers, section.off = len(shards.servers), bool(shards.why)
        section.title(f"line {shards.line}: {self._document.original(shards.line)}")
        if shards.why:
            self._migration.lost(shards.line, section, f"pool {shards.name}: is commented out: {shards.why}")
        section.remark(f"The listener{purpose}; the file of mcrouter has none.")
        section.setting("listen", self._listen(shards))
        if not shards.why:
            self._writeHash(section, shards)
        section.many("upstream", ((each.text, serverLine(each.spec, each.kind)) for each in shards.servers))
        for comment, key, value in shards.settings:
            section.remark(comment)
            section.setting(key, value)
        if shards.failover is not None:
            failover = self._write(shards.failover, f" of the failover pool of {shards.name}")
            self._writeFailover(section, shards, failover)
        return section

    def _writeFailover(self, section: Section, shards: Shards, failover: Section) -> None:
        if failover.off:
            self._migration.lost(
                shards.line, section, f"pool {shards.name}: its failover pool {failover.name} is commented out."
            )
            return
        section.remark(
            f"mcrouter uses the pool {failover.name} for a request that failed. Here it gets the requests for servers "
            "that are down."
        )
        section.setting("on-failure", "failover")
        section.setting("failover", failover.name)
        if shards.expiry:
            section.setting("failover-expire", shards.expiry)
        else:
            section.remark(
                "mcrouter does not limit how long values are kept there. Here the limit is a minute, unless "
                "failover-expire says otherwise, because the pool does not know of later changes."
            )

    def _listen(self, shards: Shards) -> str:
        try:
            number = self._offset.port(self._port)
        except ValueError as error:
            raise Wrong(Node(shards.line, ""), str(error)) from None
        self._port += 1
        return f"tcp:{number}:interface=127.0.0.1"

    def _writeHash(self, section: Section, shards: Shards) -> None:
        name, hash = DISTRIBUTIONS[shards.hash]
        section.remark(f"{shards.hash}: keys are hashed up to |#|, as mcrouter does.")
        section.setting("distribution", name)
        if hash is not None:
            section.setting("hash", hash)
        distribution = Distribution(name, hash)
        servers = [each.spec for each in shards.servers]
        try:
            warnings = distribution.warnings(servers)
        except ValueError as error:
            raise Wrong(Node(shards.line, ""), f"pool {shards.name}: {error}") from None
        for text in warnings:
            self._migration.lost(shards.line, section, f"pool {shards.name}: as with mcrouter, {text}.")
