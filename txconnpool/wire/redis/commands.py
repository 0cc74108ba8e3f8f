# -*- test-case-name: tests.wire.redis.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of Redis, and what the proxy does with each.

L{txconnpool.wire.redis.table} has the facts that a server reports about its commands. No flag says whether a
command changes the state of a connection, or concerns more than the data of its keys: the lists here do.
"""

from __future__ import annotations

import re
from enum import Enum
from math import inf
from typing import Final

from txconnpool.wire import Command
from txconnpool.wire.effects import ADMINISTERS, DELETES, HARMLESS, READS, WRITES, Effects
from txconnpool.wire.redis.elements import chosenMatch
from txconnpool.wire.redis.framing import encode, wordsOf
from txconnpool.wire.redis.table import TABLE


class Use(Enum):
    """
    What the proxy does with a command.
    """

    SHARED = "forwarded on a connection that many clients share"
    PINNED = "forwarded on a connection of the client's own"
    SUBSCRIBING = "forwarded once for all clients of the same channels"
    ANSWERED = "answered by the proxy"
    REFUSED = "refused"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Commands that the proxy answers, outside of a transaction.
ANSWERED: Final = _names(
    "ping echo quit reset hello auth select asking readonly readwrite cluster client|setname client|getname client|id "
    "client|info client|list client|kill client|reply client|getredir unwatch exec discard "
    "unsubscribe punsubscribe sunsubscribe"
)

#: Those of them that concern other clients, so that C{allow-commands} and C{deny-commands} decide about them.
CONTROLLED: Final = _names("client|list client|kill")

#: Commands that need a connection of the client's own, with those that end this again. Blocking commands do too.
PINNED: Final = _names(
    "multi watch client|tracking client|caching blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin"
)

#: Commands that would harm the other clients of a server or of a connection, or whose reply would not be true for a
#: client of a shared connection.
REFUSED: Final = _names(
    "shutdown debug save bgsave bgrewriteaof replicaof slaveof failover sync psync replconf monitor migrate pfdebug "
    "pfselftest restore-asking wait config|get config|set config|resetstat config|rewrite script|debug script|kill "
    "function|kill client|pause client|unpause client|unblock client|no-evict "
    "client|trackinginfo module|list module|load module|loadex module|unload memory|doctor memory|malloc-stats "
    "memory|purge memory|stats latency|doctor latency|graph latency|histogram latency|history latency|latest "
    "latency|reset slowlog|get slowlog|len slowlog|reset acl|cat acl|deluser acl|dryrun acl|genpass acl|getuser "
    "acl|list acl|load acl|log acl|save acl|setuser acl|users acl|whoami"
)

#: Commands to whose replies the proxy adds something of its own, if it is asked for.
EXTENDED: Final = _names("info")

#: The beginnings of the names of commands that run a script.
_SCRIPTS: Final = ("eval", "fcall")

_DELETING: Final = _names("del unlink flushall flushdb getdel")

#: Commands whose replies count as hits and misses.
_LOOKUPS: Final = _names("get mget hget getex")

#: Commands that concern all servers, if several share the keys.
SPREAD: Final = _names(
    "flushall flushdb swapdb dbsize keys randomkey scan script|load script|exists script|flush function|load "
    "function|delete function|flush function|restore pubsub|channels pubsub|shardchannels pubsub|numsub "
    "pubsub|shardnumsub pubsub|numpat"
)

#: Commands without keys whose first channel or pattern chooses the server, as a key would.
_CHANNELS: Final = _names("publish subscribe psubscribe")

#: The key specification of commands with a single key.
_ONE_KEY: Final = re.compile(r"i[1-9]:r0,1,0").fullmatch

#: The first argument of a request, whose size is the group.
_FIRST: Final = re.compile(rb"\*[0-9]+\r\n\$[0-9]+\r\n[^\r]*\r\n\$([0-9]+)\r\n").match


class KeySpec:
    """
    Where the keys of a request are, in the form of L{txconnpool.wire.redis.table}.
    """

    __slots__ = ("_begin", "_find", "_keyword", "_kind")

    def __init__(self, text: str) -> None:
        begin, _, find = text.partition(":")
        word, _, start = begin[1:].rpartition(",")
        self._keyword = word.encode()
        self._begin = int(start)
        self._kind = find[0]
        self._find = tuple(map(int, find[1:].split(",")))

    def positions(self, words: list[bytes]) -> range:
        """
        @return: the positions of the keys among the words of a request.
        """
        size = len(words)
        start = self._begin if not self._keyword else self._search(words)
        if not 0 < start < size:
            return range(0)
        first, second, third = self._find
        if self._kind == "n":
            text = words[start + first] if start + first < size else b""
            count = int(text) if text.isdigit() and len(text) < 10 else 0
            stop = start + second + count * third
            return range(start + second, stop, third) if stop <= size else range(0)
        last = start + first if first >= 0 else size + first
        if first < 0 and third > 1:
            last = start + (size - start) // third - 1
        return range(start, min(last, size - 1) + 1, second)

    def _search(self, words: list[bytes]) -> int:
        """
        @return: the position after the keyword; 0 if there is none.
        """
        size, begin = len(words), self._begin
        places = range(begin, size) if begin >= 0 else range(size + begin, 0, -1)
        return next((at + 1 for at in places if words[at].upper() == self._keyword), 0)


class RedisCommand(Command):
    """
    A command of Redis, or a subcommand, whose name is then such as C{config|get}.

    @ivar arity: the number of words of a request; negative: the least number.
    @ivar flags: what the server reports about the command.
    @ivar use: what the proxy does with it.
    @ivar plain: 0 if requests cannot be forwarded as they are; 1 if those of a client without state can be, unless
        servers share the keys; 2 if they can be then too, because they have one key, or concern any server.
    @ivar subcommands: the subcommands, by name.
    @ivar silent: whether the client gets no reply, because it has turned replies off.
    @ivar gathers: whether the reply reader passes on the elements of the reply in place of its bytes.
    @ivar confirms: whether the reply has one frame for each channel of the request.
    @ivar runsScript: whether the reply may be what a client's script makes of it, errors too.
    @ivar mayBlock: whether the server may reply only when some other client does something.
    @ivar vague: whether the server has not told where all its keys are.
    """

    partial = False

    __slots__ = (
        "_isFirst",
        "_silenced",
        "_specs",
        "_unblocked",
        "arity",
        "confirms",
        "flags",
        "gathers",
        "keySpecs",
        "mayBlock",
        "plain",
        "redirectable",
        "runsScript",
        "silent",
        "subcommands",
        "use",
        "vague",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        index: int,
        arity: int,
        flags: frozenset[str],
        keySpecs: str,
        silent: bool = False,
        mayBlock: bool | None = None,
    ) -> None:
        super().__init__(
            name, index, idempotent="readonly" in flags, isLookup=name in _LOOKUPS, effects=_effects(name, flags),
            matchWhole=None if silent else chosenMatch,
        )  # fmt: skip
        self.group = "get" if self.isLookup else ""
        self.arity = arity
        self.flags = flags
        self.keySpecs = keySpecs
        self._specs = [KeySpec(text) for text in keySpecs.split(";") if text not in ("-", "?")]
        self._isFirst = keySpecs.startswith("i1:r") or name in _CHANNELS
        self.vague = self.gathers = False
        self.silent = silent
        self.use = _use(name)
        self.subcommands: dict[bytes, RedisCommand] = {}
        self.confirms = name in SUBSCRIBING or name in UNSUBSCRIBING
        self.mayBlock = "blocking" in flags if mayBlock is None else mayBlock
        self.plain = int(self.use is Use.SHARED and not self.mayBlock and name not in EXTENDED)
        if self.plain and name not in SPREAD and (keySpecs == "-" or _ONE_KEY(keySpecs) is not None):
            self.plain = 2
        self.runsScript = name.startswith(_SCRIPTS)
        self.keepsRequest = self.idempotent or not self.runsScript  # what the server declines is sent again
        self.redirectable = keySpecs != "-" and not self.runsScript
        if self.confirms or self.mayBlock:
            self.keepsRequest = True
            self.matchWhole = None
            self.idempotent = False
        self._silenced: RedisCommand | None = None
        self._unblocked: RedisCommand | None = None

    @property
    def silenced(self) -> RedisCommand:
        """
        The same command for a client that gets no replies.
        """
        if self._silenced is None:
            self._silenced = self._variant(True, self.mayBlock)
        return self._silenced

    @property
    def unblocked(self) -> RedisCommand:
        """
        The same command for requests to which the server replies at once.
        """
        if self._unblocked is None:
            self._unblocked = self._variant(self.silent, False)
        return self._unblocked

    def _variant(self, silent: bool, mayBlock: bool) -> RedisCommand:
        return RedisCommand(self.name, self.index, self.arity, self.flags, self.keySpecs, silent, mayBlock)

    def accepts(self, count: int) -> bool:
        """
        @return: whether a request may have C{count} words.
        """
        return count == self.arity or count >= -self.arity > 0

    def visible(self, reply: bytes) -> bytes:
        """
        @return: nothing if the client gets no replies.
        """
        return b"" if self.silent else reply

    def keysOf(self, words: list[bytes]) -> list[bytes]:
        """
        @param words: the words of a request with an allowed number of them.

        @return: its keys, in order. Where their number is a part of the request and no number, or a wrong one, there
            are none.
        """
        return [words[at] for at in self.keyPositions(words)]

    def keyPositions(self, words: list[bytes]) -> list[int]:
        """
        @return: the positions of what L{keysOf} returns.
        """
        found = [at for spec in self._specs for at in spec.positions(words)]
        return found if self.name != "sort" else found + _stored(words)

    def key(self, data: bytes, pos: int) -> bytes | None:
        """
        @return: the first key of a request, or its first channel.
        """
        if self._isFirst:
            match = _FIRST(data, pos)
            if match is not None:
                start = match.end()
                return data[start : start + int(match[1])]
        words = wordsOf(data, pos)
        keys = words[1:2] if self.name in _CHANNELS else self.keysOf(words)
        return keys[0] if keys else None

    def patience(self, request: bytes) -> float:
        """
        @return: the seconds for which the server may block the request, at most.
        """
        if not self.mayBlock or not request:
            return 0.0
        words = wordsOf(request, 0)
        return blockingTime(self.name, words) or 0.0

    def shortened(self, request: bytes, seconds: float) -> bytes:
        """
        @return: the request, with so many seconds less for which it may be blocked, but not none.
        """
        words = wordsOf(request, 0)
        time = blockingTime(self.name, words)
        at, unit = _timeoutOf(self.name, words)
        if not time or time == inf:
            return request
        words[at] = b"%d" % max(1, (time - seconds) / unit) if unit < 1.0 else b"%.3f" % max(0.001, time - seconds)
        return encode(words)


#: Commands with which a client becomes a subscriber, and those that end this.
SUBSCRIBING: Final = _names("subscribe psubscribe ssubscribe")
UNSUBSCRIBING: Final = _names("unsubscribe punsubscribe sunsubscribe")


def blockingTime(name: str, words: list[bytes]) -> float | None:
    """
    @param name: the name of a command that may block.
    @param words: the words of a request.

    @return: the seconds for which the request may be blocked; C{None} if it is not.
    """
    at, unit = _timeoutOf(name, words)
    if not at:
        return None
    try:
        seconds = float(words[at]) * unit
    except ValueError:
        return 0.0  # the server answers at once
    return seconds if 0 < seconds < inf else (inf if seconds == 0 else 0.0)


def _timeoutOf(name: str, words: list[bytes]) -> tuple[int, float]:
    """
    @return: the position of the word that says how long a request may be blocked, 0 if there is none, and its unit in
        seconds.
    """
    if name in ("xread", "xreadgroup"):
        return _option(words, b"BLOCK"), 0.001
    return (1, 1.0) if name in ("blmpop", "bzmpop") else (len(words) - 1, 1.0)


#: How many words follow each option of C{SORT}. One that names a key is C{STORE}; the server does not report where.
_SORT_OPTIONS: Final = {b"LIMIT": 2, b"GET": 1, b"BY": 1, b"STORE": 1}


def _stored(words: list[bytes]) -> list[int]:
    """
    @return: the position of the key in which a C{SORT} stores its result, if it has one. The last one counts.
    """
    pos, found = 2, []
    while pos + 1 < len(words):
        word = words[pos].upper()
        if word == b"STORE":
            found = [pos + 1]
        pos += 1 + _SORT_OPTIONS.get(word, 0)
    return found


def _option(words: list[bytes], option: bytes) -> int:
    """
    @return: the position of the word after an option of C{XREAD} or C{XREADGROUP}, whose options are before the word
        C{STREAMS}; 0 if there is none.
    """
    pos = 1
    while pos + 1 < len(words):
        word = words[pos].upper()
        if word == b"STREAMS":
            return 0
        if word == option:
            return pos + 1
        pos += 3 if word == b"GROUP" else 1 if word == b"NOACK" else 2
    return 0


def _use(name: str) -> Use:
    if name in ANSWERED:
        return Use.ANSWERED
    if name in PINNED:
        return Use.PINNED
    if name in SUBSCRIBING:
        return Use.SUBSCRIBING
    parent = name.partition("|")[0]
    if name.endswith("|help"):
        return Use.SHARED
    if parent == "cluster":
        return Use.ANSWERED
    return Use.REFUSED if name in REFUSED else Use.SHARED


def _effects(name: str, flags: frozenset[str]) -> Effects:
    effects = HARMLESS
    if "readonly" in flags:
        effects |= READS
    if "write" in flags:
        effects |= WRITES
    if name in _DELETING:
        effects |= DELETES
    if name.startswith(_SCRIPTS) and "readonly" not in flags:
        effects |= READS | WRITES | DELETES
    if "admin" in flags or name in ("flushall", "flushdb", "swapdb") or name.startswith(("script|", "function|")):
        effects |= ADMINISTERS
    return effects


def _read() -> dict[str, RedisCommand]:
    found: dict[str, RedisCommand] = {}
    for index, line in enumerate(TABLE.splitlines()):
        name, arity, flags, *_, specifications = line.split(" ")
        command = RedisCommand(name, index, int(arity), frozenset(flags.split(",")), specifications)
        found[name] = command
        parent, _, child = name.partition("|")
        if child:
            found[parent].subcommands[child.encode()] = command
            found[parent].plain = 0
    return found


#: All commands and subcommands, by name.
BY_NAME: Final = _read()

#: The same, in the order of their indexes.
COMMANDS: Final = tuple(BY_NAME.values())

#: The commands without subcommands, by their names in lower and upper case.
LOOKUP: Final[dict[bytes, RedisCommand]] = {
    spelling: command
    for name, command in BY_NAME.items()
    if "|" not in name
    for spelling in (name.encode(), name.upper().encode())
}
