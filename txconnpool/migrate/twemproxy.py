# -*- test-case-name: tests.migrate.test_twemproxy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Convert the C{nutcracker.yml} of twemproxy.

The keys and the forms of their values are those of C{nc_conf.c} of twemproxy 0.5.0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from txconnpool.config.kinds import nearest
from txconnpool.migrate.document import Document, Node
from txconnpool.migrate.endpoints import Offset, escaped, port, seconds, serverLine
from txconnpool.migrate.sections import Migration
from txconnpool.routing.distribution import Distribution, ServerSpec
from txconnpool.routing.distribution.servers import TWEMPROXY
from txconnpool.routing.hashing import TWEMPROXY_HASHES

#: Our distributions, by those of twemproxy.
DISTRIBUTIONS = {"ketama": "twemproxy", "modula": "twemproxy-modula", "random": "round-robin"}

#: The greatest database that a pool may have here.
DATABASE_MAX = 15

_SERVER = "expected HOST:PORT:WEIGHT, HOST:PORT:WEIGHT NAME, /PATH:WEIGHT or /PATH:WEIGHT NAME"


def convert(document: Document, offset: Offset) -> Migration:
    """
    Convert a configuration.

    @param document: the configuration.
    @param offset: how listeners are moved.
    @raise MigrationError: twemproxy would refuse it.
    """
    migration = Migration(document)
    pools = document.root.fields
    if not pools:
        document.problem(
            document.root.line, "expected a name of a pool, such as `alpha:`, with its keys indented below"
        )
    listening: dict[str, str] = {}
    for name, node in pools.items():
        pool = _Pool(migration, name, node, offset)
        other = listening.setdefault(pool.listen, name)
        if pool.listen and other != name:
            document.problem(
                node.line, f"{name}: has the listen address {pool.listen} of {other}; expected another one"
            )
        if not document.problems:
            pool.write()
    document.check()
    return migration


def parseServer(text: str) -> ServerSpec:
    """
    Parse an element of C{servers}.

    @return: the server. It has a label only if it is not the one that twemproxy would choose.
    @raise ValueError: the text is wrong.
    """
    address, space, name = text.rpartition(" ")
    if not space:
        address, name = text, ""
    host, colon, weight = address.rpartition(":")
    written = ""
    if not address.startswith("/"):
        host, _, written = host.rpartition(":")
    if not colon or not host or (space and not name) or (address.startswith("/") and ":" in host):
        raise ValueError(_SERVER)
    if not re.fullmatch("[0-9]{1,10}", weight) or not 0 < int(weight) < 1 << 31:
        raise ValueError(f"weight {weight}: expected a whole number from 1; {_SERVER}")
    path = host if address.startswith("/") else None
    server = ServerSpec(
        host=host if path is None else None,
        port=port(written) if path is None else None,
        path=path,
        weight=int(weight) if int(weight) != 1 else None,
    )
    # Without a name, what twemproxy hashes is a part of the text, so "011212" stays as it is.
    name = name or (TWEMPROXY(server) if path or server.port == 11211 else f"{host}:{written}")
    return server if name == TWEMPROXY(server) else ServerSpec(server.host, server.port, path, server.weight, name)


def _number(node: Node) -> int:
    text = node.text or ""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("expected a whole number from 0")
    return int(text)


def _boolean(node: Node) -> bool:
    if node.text not in ("true", "false"):
        raise ValueError("expected true or false")
    return node.text == "true"


def _text(node: Node) -> str:
    if not node.text:
        raise ValueError("expected a text")
    return node.text


def _hash(node: Node) -> str:
    if node.text not in TWEMPROXY_HASHES:
        raise ValueError(f"expected one of {', '.join(TWEMPROXY_HASHES)}")
    return node.text


def _distribution(node: Node) -> str:
    if node.text not in DISTRIBUTIONS:
        raise ValueError(f"expected one of {', '.join(DISTRIBUTIONS)}")
    return node.text


def _tag(node: Node) -> str:
    if len(_text(node).encode()) != 2:
        raise ValueError('expected two characters in quotation marks, such as "{}"')
    return _text(node)


def _listen(node: Node) -> tuple[str, int]:
    """
    @return: the host and the port, or the path of a UNIX socket and its permissions, or 0 for those of the process.
    """
    text = _text(node)
    if text.startswith("/"):
        path, space, mode = text.rpartition(" ")
        if not space:
            return text, 0
        if not re.fullmatch("0?[0-7]{1,3}", mode):
            raise ValueError("expected /PATH, or /PATH and permissions in octal, such as /run/nutcracker.sock 0660")
        return path, int(mode, 8)
    host, _, written = text.rpartition(":")
    if not host:
        raise ValueError("expected HOST:PORT or /PATH")
    return host, port(written)


#: The keys of a pool, and what reads their values. Those of C{servers} are a list.
_KEYS: dict[str, Callable[[Node], Any]] = {
    "listen": _listen,
    "hash": _hash,
    "hash_tag": _tag,
    "distribution": _distribution,
    "timeout": _number,
    "backlog": _number,
    "client_connections": _number,
    "redis": _boolean,
    "redis_auth": _text,
    "redis_db": _number,
    "preconnect": _boolean,
    "tcpkeepalive": _boolean,
    "reuseport": _boolean,
    "auto_eject_hosts": _boolean,
    "server_connections": _number,
    "server_retry_timeout": _number,
    "server_failure_limit": _number,
}


class _Pool:
    """
    One pool of the configuration.
    """

    def __init__(self, migration: Migration, name: str, node: Node, offset: Offset) -> None:
        self._document, self._migration = migration.document, migration
        self._name, self._node, self._offset = name, node, offset
        self._values: dict[str, Any] = {}
        self._servers: list[ServerSpec] = []
        self._read()

    @property
    def listen(self) -> str:
        """
        The address as it is in the configuration, or an empty string.
        """
        node = self._node.fields.get("listen")
        return node.text or "" if node is not None else ""

    def _read(self) -> None:
        fields, before = self._node.fields, len(self._document.problems)
        for key, node in fields.items():
            if key == "servers":
                self._readServers(node)
            elif key in _KEYS:
                try:
                    self._values[key] = _KEYS[key](node)
                except ValueError as error:
                    self._problem(node, f"{key}: {node}: {error}")
            else:
                near = nearest(key, [*_KEYS, "servers"])
                right = f"did you mean {near}?" if near else f"expected one of {', '.join([*_KEYS, 'servers'])}"
                self._problem(node, f"{key}: twemproxy has no such key; {right}")
        for key in ("listen", "servers"):
            if key not in fields:
                self._problem(self._node, f"has no {key}; expected `{key}:` in every pool")
        if self._values.get("server_connections") == 0:
            self._problem(fields["server_connections"], "server_connections: 0: expected a whole number from 1")
        if "redis_auth" in fields and not self._values.get("redis"):
            self._problem(fields["redis_auth"], "redis_auth: is for pools with `redis: true` only")
        if len(self._document.problems) == before:
            try:
                self._distribution().check(self._servers)
            except ValueError as error:
                self._problem(fields["servers"], f"servers: {error}")

    def _readServers(self, node: Node) -> None:
        if not node.items:
            self._problem(node, f"servers: is empty; {_SERVER}")
        for each in node.items:
            try:
                self._servers.append(parseServer(_text(each)))
            except ValueError as error:
                self._problem(each, f"servers: {each}: {error}")

    def _problem(self, node: Node, text: str) -> None:
        self._document.problem(node.line, f"{self._name}: {text}")

    def _distribution(self) -> Distribution:
        name = DISTRIBUTIONS[self._values.get("distribution", "ketama")]
        if name == "round-robin":
            return Distribution(name)
        tag = self._values.get("hash_tag", "").encode()
        return Distribution(name, self._values.get("hash", "fnv1a_64"), hashTag=tag)

    @property
    def _ejects(self) -> bool:
        return bool(self._values.get("auto_eject_hosts")) and self._distribution().keyed

    def write(self) -> None:
        """
        Add the section of the pool.
        """
        section = self._section = self._migration.section(self._name)
        section.servers = len(self._servers)
        section.title(self._document.original(self._node.line))
        if section.name != self._name:
            section.title(f"The name is {section.name} here: letters, digits, `_`, `.` and `-` are allowed.")
        if self._values.get("redis") and self._values.get("redis_db", 0) > DATABASE_MAX:
            section.off = True
            self._lost(
                "redis_db",
                f"the greatest database is {DATABASE_MAX} here. The pool is commented out, because its keys are in "
                "another one.",
            )
        for key, node in self._node.fields.items():
            secret = key == "redis_auth"
            section.remark("redis_auth: (not copied)" if secret else self._document.original(node.line))
            if key == "servers":
                self._writeServers(node)
            else:
                _WRITERS[key](self, self._values[key])
        self._writeDefaults()

    def _lost(self, key: str, text: str) -> None:
        node = self._node.fields.get(key, self._node)
        if self._section.off and key not in ("redis_db", "hash_tag"):
            # One note is enough for a pool that is not taken over.
            self._section.remark(text)
        else:
            self._migration.lost(node.line, self._section, f"{self._name}: {key}: {text}")

    def _writeServers(self, node: Node) -> None:
        originals = [self._document.original(each.line) for each in node.items]
        servers = self._servers
        if not self._distribution().keyed:
            # Equal servers have no weights.
            servers = [replace(server, weight=None, label=None) for server in servers]
        self._section.many("upstream", zip(originals, map(serverLine, servers), strict=True))
        for text in self._distribution().warnings(self._servers):
            self._lost("servers", f"as with twemproxy, {text}")
        for address, count in Counter(server.address for server in self._servers).items():
            if count > 1:
                self._lost(
                    "servers",
                    f"{address} is listed {count} times, with several names. txconnpool refuses that: write it "
                    "in another way, for example as a name of the host.",
                )

    def _writeListen(self, value: tuple[str, int]) -> None:
        host, number = value
        if host.startswith("/"):
            if not number:
                self._lost(
                    "listen",
                    "without permissions, a socket of twemproxy has those of its umask. Here mode=600 lets only the "
                    "user of the proxy connect; choose another mode if clients run as other users.",
                )
            self._section.setting("listen", f"unix:{escaped(self._offset.path(host))}:mode={number or 0o600:o}")
            return
        try:
            moved = self._offset.port(number)
        except ValueError as error:
            self._problem(self._node.fields["listen"], f"listen: {error}")
            return
        backlog = f":backlog={self._values['backlog']}" if self._values.get("backlog") else ""
        self._section.setting("listen", f"tcp:{moved}:interface={escaped(host)}{backlog}")

    def _writeHash(self, value: str) -> None:
        if self._distribution().keyed:
            self._section.setting("hash", value)
        else:
            self._section.remark("No effect: the distribution random does not hash keys.")

    def _writeTag(self, value: str) -> None:
        if self._distribution().keyed:
            self._section.setting("hash-tag", value)
            if not re.fullmatch("[!-~]{2}", value):
                self._section.off = True
                self._lost("hash_tag", "here it must be two printable ASCII characters. The pool is commented out.")
        else:
            self._section.remark("No effect: the distribution random does not hash keys.")

    def _writeDistribution(self, value: str) -> None:
        self._section.setting("distribution", DISTRIBUTIONS[value])
        if value == "random":
            self._lost(
                "distribution",
                "random sends each request to any server, more often to one with a weight. The nearest is round-robin: "
                "each server in turn. Both are only for servers that are interchangeable, such as a row of proxies.",
            )

    def _writeTimeout(self, value: int) -> None:
        if value:
            self._section.remark("Milliseconds, for each of: connecting, waiting for a connection, and the reply.")
            for setting in ("connect-timeout", "wait-timeout", "request-timeout"):
                self._section.setting(setting, seconds(value))
        else:
            self._noTimeout()

    def _noTimeout(self) -> None:
        self._lost(
            "timeout",
            "without one, twemproxy waits for ever. Here a request gets an error if connecting takes longer than "
            "connect-timeout (1 second), the wait for a connection longer than wait-timeout (1), or the reply longer "
            "than request-timeout (2).",
        )

    def _writeBacklog(self, value: int) -> None:
        where = "of a UNIX socket is 1024" if self._values["listen"][0].startswith("/") else "is in `listen`"
        self._section.remark(f"The backlog {where}." if value else "The backlog is 1024.")

    def _writeClients(self, value: int) -> None:
        self._section.remark(f"twemproxy ignores it. `max-clients = {value}` would set this limit; it is 10000.")

    def _writeRedis(self, value: bool) -> None:
        self._section.setting("protocol", "redis" if value else "memcache")

    def _writeAuth(self, value: str) -> None:
        place = f"file:/etc/connpool/{self._section.name}.auth"
        self._lost(
            "redis_auth",
            f"passwords are never in the ini file, only their place. Write `default:PASSWORD` into {place[5:]}, which "
            "only the user of the proxy can read. It is for the servers, and as with twemproxy clients log in with it.",
        )
        self._section.setting("upstream-auth", place)
        self._section.setting("listen-auth", place)

    def _writeDatabase(self, value: int) -> None:
        if not self._values.get("redis"):
            self._section.remark("For Redis only.")
        elif not value:
            self._section.remark("The default here too.")
        elif not self._section.off:
            self._section.setting("database", value)

    def _writePreconnect(self, value: bool) -> None:
        if value:
            self._section.remark("One open connection for each server.")
            self._section.setting("min-pool-size", len(self._servers))

    def _writeKeepAlive(self, value: bool) -> None:
        self._section.remark("Always on here, for clients and servers.")

    def _writeReusePort(self, value: bool) -> None:
        if value:
            self._lost(
                "reuseport",
                "several nutcracker processes listen on the same port. Here one process listens for several workers: "
                "`workers = N` in [connpool].",
            )

    def _writeEject(self, value: bool) -> None:
        if self._ejects:
            self._section.remark(
                "At least half of the servers keep their keys, down or not: see min-live-servers. twemproxy has no "
                "such limit."
            )
            self._section.setting("on-failure", "rehash")
            if "server_failure_limit" not in self._values:
                self._section.setting("eject-after", 2)
        elif not value:
            self._section.remark("The default here too: on-failure = fail.")
        else:
            self._section.remark("Not needed: of interchangeable servers, those that are down get no requests.")

    def _writeLimit(self, value: int) -> None:
        if self._ejects:
            self._section.setting("eject-after", max(1, value))
        else:
            self._section.remark(_NO_EJECTION)

    def _writeRetry(self, value: int) -> None:
        if self._ejects:
            self._lost(
                "server_retry_timeout",
                "twemproxy puts a server back after this time, working or not. Here it is dialed until it answers, "
                "with pauses of about a second, and is put back only then.",
            )
        else:
            self._section.remark(_NO_EJECTION)

    def _writeConnections(self, value: int) -> None:
        number = min(value * len(self._servers), 65535)
        self._section.remark(f"{value} for each of {len(self._servers)} servers; here it is the sum.")
        self._section.setting("pool-size", number)

    def _writeDefaults(self) -> None:
        for key, value in (("distribution", "ketama"), ("hash", "fnv1a_64")):
            if key not in self._values and (key != "hash" or self._distribution().keyed):
                self._section.remark(f"{key}: {value} (the default of twemproxy)")
                self._section.setting(key, DISTRIBUTIONS.get(value, value))
        if "timeout" not in self._values:
            self._noTimeout()


_NO_EJECTION = "No effect without `auto_eject_hosts: true`."

#: The functions that write the settings for each key.
_WRITERS: dict[str, Callable[[_Pool, Any], None]] = {
    "listen": _Pool._writeListen,
    "hash": _Pool._writeHash,
    "hash_tag": _Pool._writeTag,
    "distribution": _Pool._writeDistribution,
    "timeout": _Pool._writeTimeout,
    "backlog": _Pool._writeBacklog,
    "client_connections": _Pool._writeClients,
    "redis": _Pool._writeRedis,
    "redis_auth": _Pool._writeAuth,
    "redis_db": _Pool._writeDatabase,
    "preconnect": _Pool._writePreconnect,
    "tcpkeepalive": _Pool._writeKeepAlive,
    "reuseport": _Pool._writeReusePort,
    "auto_eject_hosts": _Pool._writeEject,
    "server_connections": _Pool._writeConnections,
    "server_retry_timeout": _Pool._writeRetry,
    "server_failure_limit": _Pool._writeLimit,
}
