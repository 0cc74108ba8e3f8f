# -*- test-case-name: tests.wire.redis.test_learning -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Commands that the table of the proxy lacks: those of modules, and of newer servers. The server describes them
(C{COMMAND INFO}) when a client first uses one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from txconnpool.errors import WireError
from txconnpool.wire.effects import ADMINISTERS, DELETES, HARMLESS, READS, WRITES, Effects
from txconnpool.wire.redis.commands import COMMANDS, RedisCommand, Use
from txconnpool.wire.redis.values import ReplyParser

#: The greatest number of names of which is known whether the server has them.
NAMES_MAX: Final = 1000

#: Names that a server may be asked for. No command has another one.
NAME: Final = re.compile(rb"[a-z0-9._:-]{1,64}").fullmatch

#: Commands with one of these flags are for operators, or change the state of a connection. A command may have the
#: third one because it blocks, and changes nothing.
_HARMFUL: Final = frozenset(("admin", "pubsub", "noscript", "no_auth", "asking"))

#: The index of all commands that were learned: they are counted together.
INDEX: Final = len(COMMANDS)


class LearnedCommand(RedisCommand):
    """
    A command that a server has described. What is not known of it is assumed to be the worst.
    """

    __slots__ = ()

    def __init__(
        self,
        name: str,
        arity: int,
        flags: frozenset[str],
        keySpecs: str,
        silent: bool = False,
        mayBlock: bool | None = None,
    ) -> None:
        super().__init__(name, INDEX, arity, flags, keySpecs, silent, mayBlock)
        self.vague = "?" in keySpecs
        self.plain = 0
        harmful = flags & _HARMFUL
        if harmful and not (harmful == {"noscript"} and self.mayBlock):
            self.use = Use.REFUSED
        else:
            self.use = Use.PINNED if self.mayBlock else Use.SHARED
        self.effects = _effects(flags)
        if not flags & {"readonly", "write"}:  # it may run a script, which returns any error
            self.runsScript = True
            self.keepsRequest = self.redirectable = False

    def _variant(self, silent: bool, mayBlock: bool) -> LearnedCommand:
        return LearnedCommand(self.name, self.arity, self.flags, self.keySpecs, silent, mayBlock)

    def patience(self, request: bytes) -> float:
        """
        @return: infinity if the server may block the request, because it is not known for how long.
        """
        return float("inf") if self.mayBlock else 0.0


def _effects(flags: frozenset[str]) -> Effects:
    """
    @return: the effects of a command. One that writes may delete, and one without both flags may do anything to values.
    """
    effects = ADMINISTERS if "admin" in flags else HARMLESS
    if "readonly" in flags:
        return effects | READS
    return effects | WRITES | DELETES if "write" in flags else effects | READS | WRITES | DELETES


#: The command under which all learned ones are counted.
OTHER: Final = LearnedCommand("other", -1, frozenset(), "-")


def described(reply: bytes) -> LearnedCommand | None:
    """
    @param reply: the reply of a server to C{COMMAND INFO} with one name, in RESP2.

    @return: the command; C{None} if the server does not know it, or describes it in a way that is not known here.
    """
    try:
        (entry,) = ReplyParser(_refuse, "ascii").parse(reply)
        return None if entry is None else _commandOf(entry)
    except (WireError, ValueError, TypeError, KeyError, IndexError):
        return None


def _refuse(text: str) -> Any:
    raise WireError(text)


def _commandOf(entry: list[Any]) -> LearnedCommand:
    """
    @param entry: an element of a reply to C{COMMAND}. Servers before Redis 7 send fewer fields.
    """
    name, arity, flags, first, last, step, *more = entry
    flags = frozenset(flags)
    if len(more) > 2:
        specs = ";".join(map(keySpecification, more[2])) or "-"
    elif first:
        specs = f"i{first}:r{last - first if last >= 0 else last},{step},0"
    else:
        specs = "-"
    if len(more) < 3 and "movablekeys" in flags:
        specs = "?" if specs == "-" else specs + ";?"
    command = LearnedCommand(name.lower(), arity, flags, specs)
    for each in more[3] if len(more) > 3 else ():
        child = _commandOf(each)
        command.subcommands[child.name.rpartition("|")[2].encode()] = child
    return command


def _pairs(flat: Any) -> Mapping[str, Any]:
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def keySpecification(given: Any) -> str:
    """
    @param given: a key specification in a reply to C{COMMAND}.

    @return: the same in the form of L{txconnpool.wire.redis.table}.
    """
    every = _pairs(given)
    begin, find = _pairs(every["begin_search"]), _pairs(every["find_keys"])
    at, how = _pairs(begin["spec"]), _pairs(find["spec"])
    if "unknown" in (begin["type"], find["type"]):
        return "?"
    first = f"i{at['index']}" if begin["type"] == "index" else f"k{at['keyword']},{at['startfrom']}"
    if find["type"] == "range":
        return f"{first}:r{how['lastkey']},{how['keystep']},{how['limit']}"
    return f"{first}:n{how['keynumidx']},{how['firstkey']},{how['keystep']}"


class Learned:
    """
    What the servers of a pool have said about the names of commands.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, LearnedCommand | None] = {}

    def __contains__(self, name: bytes) -> bool:
        """
        @return: whether a server was asked for a name.
        """
        return name in self._known

    def get(self, name: bytes) -> LearnedCommand | None:
        """
        @return: the command; C{None} if there is none, or if it is not known whether there is one.
        """
        return self._known.get(name)

    def commands(self) -> Iterator[RedisCommand]:
        """
        @return: the commands and their subcommands.
        """
        for command in self._known.values():
            if command is not None:
                yield command
                yield from command.subcommands.values()

    def add(self, name: bytes, command: LearnedCommand | None) -> None:
        """
        Remember what a server has said. What was added first is forgotten if there are more than L{NAMES_MAX} names.
        """
        self._known.pop(name, None)
        self._known[name] = command
        if len(self._known) > NAMES_MAX:
            del self._known[next(iter(self._known))]

    def forgetAbsent(self) -> None:
        """
        Ask again for names that the server did not know: it may have been replaced.
        """
        self._known = {name: command for name, command in self._known.items() if command is not None}

    def clear(self) -> None:
        """
        Ask again for all names.
        """
        self._known.clear()
