# -*- test-case-name: tests.routing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Vectors: to which servers the running clients and proxies sent the same 300 keys. Each file in C{vectors/} belongs to
one system; C{from} in it says to which version, and how the servers were found::

    {"scheme": "twemproxy-ketama",
     "from": "the running twemproxy 0.5.0",
     "pools": {"three": [["127.0.1.1", 11301, 1], ...]},
     "keys": ["user:1", ...],
     "cases": [{"pool": "three", "settings": {"hash": "md5"}, "down": [1], "to": [0, 2, 0, ...]}, ...]}

A server is a host, a port, a weight and possibly a label, or the path of a UNIX socket, 0 and a weight. C{to} has the
index of the server of each key, or -1 if the client found none. The servers in C{down} could not be reached, and the
system had noticed that. All is from x86-64, where C characters have a sign.

C{hashes.json} has the values of the hash functions for the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vectors"


@cache
def read(name: str) -> Any:
    """
    @return: the contents of a file.
    """
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


@dataclass(frozen=True)
class Case:
    """
    One case of a file.

    @ivar pool: the name of the list of servers.
    @ivar servers: each server as in the file.
    @ivar settings: how the system was configured.
    @ivar down: the indexes of servers that could not be reached.
    @ivar keys: the keys.
    @ivar to: the index of the server of each key.
    """

    pool: str
    servers: Sequence[Sequence[Any]]
    settings: dict[str, Any]
    down: Sequence[int]
    keys: Sequence[str]
    to: Sequence[int]

    def __str__(self) -> str:
        return f"{self.pool} {self.settings} down={self.down}"


def cases(name: str) -> Iterator[Case]:
    """
    @return: all cases of a file.
    """
    data = read(name)
    for case in data["cases"]:
        servers = data["pools"][case["pool"]]
        yield Case(case["pool"], servers, case["settings"], case.get("down", []), data["keys"], case["to"])
