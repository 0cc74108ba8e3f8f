# -*- test-case-name: tests.redis.memory.test_server -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The scripts of an embedded Redis. It executes no Lua: a function of the test stands for each script.
"""

from __future__ import annotations

from typing import Any

from txconnpool.redis.memory.data import COMMANDS, Data, Database, ReplyError, Wait, integer
from txconnpool.redis.scripts import EXTEND, RELEASE
from txconnpool.wire.redis.commands import LOOKUP


def addLocks(data: Data) -> None:
    """
    Add the scripts of L{Lock<txconnpool.redis.scripts.Lock>}.
    """

    def release(call: Any, keys: list[bytes], args: list[bytes]) -> Any:
        return call("DEL", *keys) if call("GET", *keys) == args[0] else 0

    def extend(call: Any, keys: list[bytes], args: list[bytes]) -> Any:
        return call("PEXPIRE", keys[0], args[1]) if call("GET", *keys) == args[0] else 0

    data.addScript(RELEASE, release)
    data.addScript(EXTEND, extend)


def run(db: Database, sha: bytes, words: tuple[bytes, ...]) -> Any:
    """
    Execute the function of a script.

    @param words: the number of keys, the keys, and the arguments.

    @raise ReplyError: there is no function, or a command of it has failed.
    """
    function = db.data.scripts.get(sha)
    if function is None:
        raise ReplyError(f"ERR the fake Redis executes no Lua: call data.addScript for the script {sha.decode()}")
    count = integer(words[0])
    if count < 0:
        raise ReplyError("ERR Number of keys can't be negative")
    if count > len(words) - 1:
        raise ReplyError("ERR Number of keys can't be greater than number of args")

    def call(*given: str | bytes | int | float) -> Any:
        sent = [each if isinstance(each, bytes) else str(each).encode() for each in given]
        command = LOOKUP.get(sent[0].lower())
        if command is None or command.name not in COMMANDS or not command.accepts(len(sent)):
            raise ReplyError(f"ERR the fake Redis cannot execute {sent[0].decode('latin-1')!r} in a script")
        value = COMMANDS[command.name](db, *sent[1:])
        return value.nothing if isinstance(value, Wait) else value

    return _converted(function(call, list(words[1 : 1 + count]), list(words[1 + count :])))


def _converted(value: Any) -> Any:
    """
    @return: what Redis makes of a result of Lua: true is 1, false is null, numbers have no fraction.
    """
    if isinstance(value, bool):
        return 1 if value else None
    if isinstance(value, float):
        return int(value)
    if isinstance(value, str):
        return value.encode()
    return list(map(_converted, value)) if isinstance(value, list | tuple) else value
