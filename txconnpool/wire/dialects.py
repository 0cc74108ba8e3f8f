# -*- test-case-name: tests.wire.test_dialects -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The protocols that a pool can use, by name. No other module outside of the dialects refers to a dialect by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from txconnpool.wire.memcache.dialect import COMMAND_NAMES, REFUSED, Memcache


@dataclass(frozen=True)
class Dialect:
    """
    The properties of a dialect that are needed before a pool uses it.

    @ivar make: creates the L{IDialect<txconnpool.wire.IDialect>} of a pool. The arguments are those of
        L{Memcache<txconnpool.wire.memcache.dialect.Memcache>}: the maximum size of a value in bytes, the commands that
        are rejected, and the only commands that are accepted (C{None}: all).
    @ivar commandNames: the names of all its commands.
    @ivar refused: the names of other commands of the protocol, which are never forwarded because they act on a server
        or a connection.
    """

    make: Callable[[int, frozenset[bytes], frozenset[bytes] | None], Any]
    commandNames: frozenset[bytes]
    refused: frozenset[bytes]


#: All dialects, by the value of the setting C{protocol}.
DIALECTS: Final[dict[str, Dialect]] = {"memcache": Dialect(Memcache, COMMAND_NAMES, REFUSED)}
