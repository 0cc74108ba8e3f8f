# -*- test-case-name: tests.wire.test_effects -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The effects of requests, and which requests are accepted because of their command or their effects.

The name of a command does not say what a request does: flags and arguments may turn a read into a write, or a write
into a deletion. So a dialect determines the effects of each request: those of its
L{Command<txconnpool.wire.Command.effects>}, and further ones of its flags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

#: The effects of a request: any of C{EFFECTS}. A request with none of them, such as one for the version, is harmless.
Effects: TypeAlias = frozenset[bytes]

#: The request returns values, or facts about them.
READS: Final[Effects] = frozenset((b"@read",))
#: The request stores or changes values, or the time at which they expire.
WRITES: Final[Effects] = frozenset((b"@write",))
#: The request removes values, marks them as stale, or makes them expire at once.
DELETES: Final[Effects] = frozenset((b"@delete",))
#: The request is about a server or about other clients: it concerns more than the keys that it names.
ADMINISTERS: Final[Effects] = frozenset((b"@admin",))
#: The request changes what a server is to all its clients. No word allows this effect, only the name of the command.
EXPLICIT: Final[Effects] = frozenset((b"explicit",))

HARMLESS: Final[Effects] = frozenset()

#: The words for all effects, which settings use beside the names of commands.
EFFECTS: Final[Effects] = READS | WRITES | DELETES | ADMINISTERS


class Permissions:
    """
    Which requests are accepted.

     - A request is refused if the name of its command, or one of its effects, is denied.
     - A request with the effect C{EXPLICIT} is refused unless the name of its command is allowed.
     - If only some words are allowed, each effect of a request must be allowed, or belong to what its command does
       without flags if the name of its command is allowed.

    @ivar restricted: whether a request can be refused.
    """

    def __init__(
        self, ordinary: Mapping[bytes, Effects], denied: frozenset[bytes], allowed: frozenset[bytes] | None
    ) -> None:
        """
        @param ordinary: the effects that each command has without flags.
        @param denied: names of commands, and words for effects.
        @param allowed: the same; C{None}: all.
        """
        self.restricted = bool(denied) or allowed is not None
        self._denied = denied
        self._everywhere = EFFECTS if allowed is None else allowed & EFFECTS
        self._named = {
            name: self._everywhere | ordinary.get(name, HARMLESS) for name in allowed or () if name in ordinary
        }

    def permits(self, name: bytes, effects: Effects) -> bool:
        """
        @param name: the name of the command of a request.
        @param effects: the effects of the request.

        @return: whether the request is accepted.
        """
        if name in self._denied or not effects.isdisjoint(self._denied):
            return False
        return effects <= self._named.get(name, self._everywhere)


def leftOpen(
    ordinary: Mapping[bytes, Effects],
    possible: Mapping[bytes, Effects],
    denied: frozenset[bytes],
    allowed: frozenset[bytes] | None,
) -> Iterator[str]:
    """
    Find denied commands whose effects other commands still have.

    A command with the effect C{@admin} is not compared with others: nothing is equivalent to deleting all values.

    @param ordinary: the effects that each command has without flags.
    @param possible: the effects that each command can have.

    @return: a warning for each effect that was probably meant.
    """
    permissions = Permissions(ordinary, denied, allowed)
    for effect in (READS, WRITES, DELETES):
        names = [name for name in denied & ordinary.keys() if effect <= ordinary[name] <= EFFECTS - ADMINISTERS]
        others = [
            name
            for name, its in possible.items()
            if effect <= its and permissions.permits(name, ordinary[name] | effect)
        ]
        if names and others:
            (word,) = (word.decode() for word in effect)
            yield (
                f"deny-commands: {_list(names)} {'is' if len(names) == 1 else 'are'} denied, but clients can "
                f"{word[1:]} with {_list(others)}; {word} denies that for all commands"
            )


def _list(names: list[bytes]) -> str:
    return b" ".join(sorted(names)).decode()
