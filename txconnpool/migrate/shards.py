# -*- test-case-name: tests.migrate.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What becomes a pool: servers, and how keys are distributed among them. And the access to mcrouter's JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from txconnpool.migrate.document import Node
from txconnpool.routing.distribution import ServerSpec


class Wrong(Exception):
    """
    A part of the configuration is wrong. It has the node and the text of the problem.
    """


@dataclass(frozen=True)
class Server:
    """
    A server of a pool.

    @ivar text: as it is in the configuration.
    @ivar kind: the type of its endpoint.
    """

    text: str
    spec: ServerSpec
    kind: str = "tcp"


@dataclass(frozen=True)
class Shards:
    """
    What becomes a pool: servers, and how keys are distributed among them.

    @ivar name: the name of the pool in the configuration.
    @ivar line: the line of the pool.
    @ivar hash: the hash function of mcrouter.
    @ivar settings: settings with the comments above them.
    @ivar why: why the pool is commented out; empty if it is not.
    @ivar failover: what is used for servers that are down.
    @ivar expiry: seconds that values are kept there; C{None} or 0: unchanged.
    """

    name: str
    line: int
    servers: tuple[Server, ...]
    hash: str = "Ch3"
    settings: tuple[tuple[str, str, str], ...] = ()
    why: str = ""
    failover: Shards | None = None
    expiry: int | None = None


def field(node: Node, key: str) -> Node:
    """
    @return: the value of a key.
    @raise Wrong: there is none.
    """
    if key not in node.fields:
        raise Wrong(node, f"has no {key}; expected the key {key} in {short(node)}")
    return node.fields[key]


def text(node: Node, key: str) -> str:
    """
    @return: the text of a key.
    @raise Wrong: there is none, or it is no text.
    """
    text = field(node, key).text
    if text is None:
        raise Wrong(node.fields[key], f"{key}: expected a text")
    return text


def whole(node: Node, key: str, default: int) -> int:
    """
    @return: the number of a key, or the default if there is none.
    @raise Wrong: it is no whole number.
    """
    if key not in node.fields:
        return default
    text = node.fields[key].text or ""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise Wrong(node.fields[key], f"{key}: {node.fields[key]}: expected a whole number")
    return int(text)


def unused(node: Node, what: str, meanings: dict[str, str], note: Callable[[Node, str], None]) -> None:
    """
    Note the keys that have no equivalent.

    @param what: what has these keys.
    @param meanings: the meanings of such keys.
    """
    for key, each in node.fields.items():
        if key in meanings:
            note(each, f"{what}: {key} {meanings[key]}")


def short(node: Node) -> str:
    """
    @return: a value for a message.
    """
    text = str(node)
    return text if len(text) <= 60 else f"{text[:57]}..."


def names(shards: Iterable[Shards]) -> str:
    """
    @return: the names of pools for a message.
    """
    return ", ".join(each.name for each in shards) or "nothing"
