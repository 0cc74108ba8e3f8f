# -*- test-case-name: tests.migrate.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of mcrouter's configuration, and the hash functions of its routes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from txconnpool.migrate.document import Document, Node
from txconnpool.migrate.endpoints import port, seconds
from txconnpool.migrate.handles import HASHES_WITHOUT, POOL_KEYS, ROUTE_KEYS
from txconnpool.migrate.shards import Server, Shards, Wrong, field, short, text, unused, whole
from txconnpool.routing.distribution import ServerSpec

#: Our distributions and their hashes, by the hash functions of mcrouter.
DISTRIBUTIONS = {
    "Ch3": ("mcrouter", None),
    "WeightedCh3": ("mcrouter", None),
    "Crc32": ("mcrouter", "crc32"),
    "Rendezvous": ("mcrouter-rendezvous", None),
    "WeightedRendezvous": ("mcrouter-rendezvous", None),
}

#: The hash functions that use weights.
_WEIGHTED = ("WeightedCh3", "WeightedRendezvous")

#: The weight of servers for which there is none.
_WEIGHT = 0.5

#: Keys of a pool that are taken over.
_TAKEN = (
    *("servers", "protocol", "server_timeout", "connect_timeout", "weights", "tags", "inherit", "name"),
    *("security_mech", "use_ssl"),
)


class Pools:
    """
    Makes L{Shards} of pools.
    """

    def __init__(self, document: Document, pools: dict[str, Node], note: Callable[[Node, str], None]) -> None:
        """
        @param document: the configuration.
        @param pools: the pools that have a name.
        @param note: is called for what has no equivalent.
        """
        self._document, self._pools, self._note = document, pools, note

    def route(self, node: Node) -> Shards:
        """
        Convert a C{PoolRoute}.

        @raise Wrong: mcrouter would refuse it.
        """
        name, pool = self._find(node)
        unused(node, f"PoolRoute {name}", ROUTE_KEYS, self._note)
        options: dict[str, Node] = {}
        if "weights" in pool.fields:
            options = {"hash_func": Node(pool.line, "WeightedCh3"), "weights": pool.fields["weights"]}
        if "tags" in pool.fields:
            options["tags"] = pool.fields["tags"]
        given = node.fields.get("hash")
        if given is not None:
            options |= {"hash_func": given} if given.text is not None else given.fields
        return hashed(self._pool(name, pool), Node(node.line, options))

    def each(self, node: Node) -> list[Shards]:
        """
        Convert a C{Pool}, which is a list of its servers.

        @raise Wrong: mcrouter would refuse it.
        """
        shards = self._pool(*self._find(node))
        return [replace(shards, servers=(server,)) for server in shards.servers]

    def _find(self, node: Node) -> tuple[str, Node]:
        pool = field(node, "pool")
        name = pool.text if pool.text is not None else text(pool, "name")
        if pool.text is not None:
            if name not in self._pools:
                known = ", ".join(self._pools) or "none"
                raise Wrong(pool, f"pool {name}: is not in pools; expected one of: {known}")
            pool = self._pools[name]
        return name, Node(pool.line, self._inherited(pool, set()))

    def _inherited(self, pool: Node, seen: set[str]) -> dict[str, Node]:
        if "inherit" not in pool.fields:
            return pool.fields
        parent = text(pool, "inherit")
        if parent not in self._pools or parent in seen:
            raise Wrong(pool.fields["inherit"], f"inherit: {parent}: expected the name of another pool")
        own = {key: each for key, each in pool.fields.items() if key != "inherit"}
        return {**self._inherited(self._pools[parent], seen | {parent}), **own}

    def _pool(self, name: str, pool: Node) -> Shards:
        secure = self._isSecure(pool)
        servers = tuple(self._server(each, secure) for each in field(pool, "servers").items)
        settings = []
        for key, setting in (("connect_timeout", "connect-timeout"), ("server_timeout", "request-timeout")):
            # The timeout of connections is by default the other one.
            given = key if key in pool.fields else "server_timeout"
            if given in pool.fields:
                line = pool.fields[given].line
                value = seconds(max(1, whole(pool, given, 0)))
                settings.append((f"line {line}: {self._document.original(line)}", setting, value))
        unused(pool, f"pool {name}", POOL_KEYS, self._note)
        known = {*POOL_KEYS, *_TAKEN}
        for key, each in pool.fields.items():
            if key not in known:
                self._note(each, f"pool {name}: {key} is not known here, and is left out.")
        protocol = pool.fields.get("protocol")
        why = ""
        if protocol is not None and (protocol.text or "").lower() != "ascii":
            why = (
                f"the protocol {protocol.text} is mcrouter's own. Here servers must speak memcached's text protocol: "
                "use the ports where they do."
            )
        if secure:
            self._note(pool, f"pool {name}: is encrypted. Add :trustRoots=DIRECTORY for a private authority.")
        return Shards(name, pool.line, servers, settings=tuple(settings), why=why)

    def _isSecure(self, pool: Node) -> bool:
        mechanism = pool.fields.get("security_mech")
        if mechanism is not None:
            return mechanism.text not in ("plain", None)
        return "use_ssl" in pool.fields and pool.fields["use_ssl"].text in ("true", "1")

    def _server(self, node: Node, secure: bool) -> Server:
        """
        Parse C{HOST:PORT}, C{[IPV6]:PORT} or C{unix:PATH}, after which C{:PROTOCOL:SECURITY:COMPRESSION} may follow.
        """
        written = node.text or ""
        match = re.fullmatch(r"(unix:)?(\[[^]]*\]|[^:]+)(?::(.*))?", written)
        if match is None:
            raise Wrong(node, f"servers: {short(node)}: expected HOST:PORT, [IPV6]:PORT or unix:PATH")
        rest = (match[3] or "").split(":")
        host = match[2].removeprefix("[").removesuffix("]")
        if match[1]:
            return Server(written, ServerSpec(path=host))
        try:
            number = port(rest[0])
        except ValueError as error:
            raise Wrong(node, f"servers: {written}: {error}") from None
        protocol, security, compression = (*rest[1:4], "", "", "")[:3]
        if protocol not in ("", "ascii"):
            raise Wrong(node, f"servers: {written}: the protocol {protocol} is mcrouter's own; expected ascii")
        if compression == "compressed":
            self._note(node, f"servers: {written}: {POOL_KEYS['enable_compression']}")
        kind = "tls" if (secure if not security else security != "plain") else "tcp"
        return Server(written, ServerSpec(host=host, port=number), kind)


def hashed(shards: Shards, options: Node) -> Shards:
    """
    Apply the options of a hash.

    @raise Wrong: mcrouter would refuse them.
    """
    function = text(options, "hash_func") if "hash_func" in options.fields else "Ch3"
    salt = text(options, "salt") if "salt" in options.fields else ""
    if len(shards.servers) == 1:
        return replace(shards, hash="Ch3")
    if function not in DISTRIBUTIONS:
        meaning = HASHES_WITHOUT.get(function, "is not known")
        why = f"the hash function {function} {meaning}, and has no equivalent: its keys would move."
        return replace(shards, why=shards.why or why)
    if salt:
        why = f"keys are hashed with the salt {salt}, for which there is no setting: they would move."
        return replace(shards, why=shards.why or why)
    servers = shards.servers
    if function in _WEIGHTED:
        servers = _weighted(servers, options)
    if function.endswith("Rendezvous"):
        servers = _tagged(servers, options)
    return replace(shards, servers=servers, hash=function)


def _weighted(servers: tuple[Server, ...], options: Node) -> tuple[Server, ...]:
    nodes = field(options, "weights").items
    weights = []
    for node in nodes[: len(servers)]:
        try:
            weight = float(node.text or "")
        except ValueError:
            weight = -1
        if not 0 <= weight <= 1 or node.quoted:
            raise Wrong(node, f"weights: {node}: expected a number from 0 to 1")
        weights.append(weight)
    weights += [_WEIGHT] * (len(servers) - len(weights))
    return tuple(
        replace(each, spec=replace(each.spec, weight=weight)) for each, weight in zip(servers, weights, strict=True)
    )


def _tagged(servers: tuple[Server, ...], options: Node) -> tuple[Server, ...]:
    tags = [node.text or "" for node in field(options, "tags").items]
    if len(tags) != len(servers):
        raise Wrong(options.fields["tags"], f"tags: {len(tags)} of them; expected one for each server")
    return tuple(replace(each, spec=replace(each.spec, label=tag)) for each, tag in zip(servers, tags, strict=True))
