# -*- test-case-name: tests.redis.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
All commands of a Redis client, with the names of redis-py's methods.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from txconnpool.redis.arguments import Argument, Key
from txconnpool.redis.base import BaseCommands, V, booleans
from txconnpool.redis.combining import CombiningCommands
from txconnpool.redis.geo import DistinctCommands, GeoCommands
from txconnpool.redis.hashes import HashCommands
from txconnpool.redis.keys import KeyCommands, ServerCommands, StringCommands
from txconnpool.redis.lists import ListCommands
from txconnpool.redis.sets import SetCommands
from txconnpool.redis.sortedsets import SortedSetCommands
from txconnpool.redis.streams import GroupCommands, StreamCommands


class ScriptCommands(BaseCommands[V]):
    """
    Commands for scripts.
    """

    def eval(self, script: str | bytes, numkeys: int, *keys_and_args: Argument) -> Deferred[Any]:
        """
        Execute a script.

        @param numkeys: how many of the arguments after it are keys.

        @return: fires with the value of its reply.
        """
        return self._do("eval", None, script, numkeys, *keys_and_args)

    def evalsha(self, sha: str | bytes, numkeys: int, *keys_and_args: Argument) -> Deferred[Any]:
        """
        Execute a script that the server knows, by the SHA-1 of its text.

        @return: fires with the value of its reply; fails with L{NoScript<txconnpool.redis.NoScript>} if the server does
            not know it.
        """
        return self._do("evalsha", None, sha, numkeys, *keys_and_args)

    def script_load(self, script: str | bytes) -> Deferred[str]:
        """
        Let the server know a script.

        @return: fires with the SHA-1 of its text.
        """
        return self._do("script|load", _digest, script)

    def script_exists(self, *args: Key) -> Deferred[list[bool]]:
        """
        @return: fires with whether the server knows the script of each SHA-1.
        """
        return self._do("script|exists", booleans, *args)


class RedisCommands(
    KeyCommands[V],
    StringCommands[V],
    HashCommands[V],
    ListCommands[V],
    SetCommands[V],
    SortedSetCommands[V],
    CombiningCommands[V],
    StreamCommands[V],
    GroupCommands[V],
    GeoCommands[V],
    DistinctCommands[V],
    ScriptCommands[V],
    ServerCommands[V],
):
    """
    The commands of a Redis client. A subclass sends the requests.
    """


def _digest(value: Any) -> str:
    return value if isinstance(value, str) else value.decode("ascii")
