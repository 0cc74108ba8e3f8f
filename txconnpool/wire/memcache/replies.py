# -*- test-case-name: tests.wire.memcache.test_exchanges -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of memcached, with a L{MemcacheCommand} that describes the replies of each.

The descriptions are as narrow as possible: they match only replies that memcached 1.6 can send to a request that was
checked. So a stream of replies that is off by one is detected. An error is part of the description if it is the
complete reply to a request:

 - C{SERVER_ERROR} always: memcached sends it in place of a reply, after it has discarded the data block.
 - C{ERROR} and C{CLIENT_ERROR} for requests without a data block, from servers that do not know the command or a flag.
 - for requests with a data block only those C{CLIENT_ERROR}s of C{ms} after which memcached has discarded the block.
   After any other error it interprets the block as commands, and sends further replies.

One C{SERVER_ERROR} belongs to no request. If there is no memory for the reply to a C{get}, memcached discards all
replies that it has not sent yet, including those to other requests, and sends C{out of memory writing get response}
(C{proto_text.c}, "Kill any stacked responses we had"). It is then unknown which request the next reply belongs to.

An error never follows a body: memcached discards the whole reply and sends one error line instead (C{proto_text.c},
C{process_get_command}). mcrouter does end a list of values with an error line. But memcached's own proxy sends C{END}
after such a line, so if the line were accepted as the end of a reply, this C{END} would be taken for the reply to the
next request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from txconnpool import native
from txconnpool.errors import WireError
from txconnpool.wire.effects import ADMINISTERS, DELETES, EXPLICIT, HARMLESS, READS, WRITES, Effects
from txconnpool.wire.memcache.matching import DumpCommand, Matcher, MemcacheCommand, received
from txconnpool.wire.memcache.values import severalMatcher

# The class does not exclude line ends, which makes the search for the end of the key three times as fast. A reply of
# memcached never has a line end in a key.
_KEY: Final = rb"[^ ]{1,250}"
_WORD: Final = b"VALUE "
_LENGTH: Final = rb"([0-9]{1,10})"
_ERROR: Final = rb"SERVER_ERROR(?! out of memory writing get response)[^\r\n]*\r\n"
_LINE_ERROR: Final = _ERROR + rb"|CLIENT_ERROR[^\r\n]*\r\n|ERROR\r\n"
_MS_ERROR: Final = (
    rb"CLIENT_ERROR (?:invalid flag|duplicate flag|invalid or duplicate flag|bad token in command line format"
    rb"|error decoding key|opaque token too long|incorrect length for M token|invalid mode for ms M token"
    rb"|invalid numeric (?:initial|delta) value)\r\n"
)


def _matcher(*alternatives: bytes) -> Matcher:
    """
    Create a matcher for any of the patterns. If they have no groups, an alternative that never matches adds them,
    because L{MemcacheCommand} needs two.
    """
    compiled = re.compile(b"|".join(alternatives))
    if not compiled.groups:
        compiled = re.compile(compiled.pattern + rb"|(?!)()()")
    return compiled.match


_NOTHING: Final = _matcher(rb"(?!)")
_LINE_END: Final = _matcher(rb"\r\n")

_commands: list[MemcacheCommand] = []


def _command(
    name: str,
    *first: bytes,
    error: bytes,
    effects: Effects,
    after: Matcher = _NOTHING,
    ending: bytes = b"\r\nEND\r\n",
    read: bool = False,
    asked: Callable[[bytes], list[bytes]] | None = None,
    isLookup: bool = False,
    keyAt: int = 0,
    word: bytes = b"",
    kind: type[MemcacheCommand] = MemcacheCommand,
) -> MemcacheCommand:
    """
    Create a command, with the next index.
    """
    command = kind(
        name, len(_commands), read, _matcher(*first), after, ending, _matcher(error), None, asked, isLookup,
        keyAt=keyAt, word=word, effects=effects,
    )  # fmt: skip
    _commands.append(command)
    return command


def _withValue(command: MemcacheCommand, *first: bytes) -> MemcacheCommand:
    """
    Create a variant of a meta command, for requests that return the value.
    """
    return MemcacheCommand(
        command.name,
        command.index,
        command.idempotent,
        _matcher(*first),
        _LINE_END,
        b"\r\n",
        command.errors,
        isLookup=command.isLookup,
        effects=command.effects,
    )


def _asked(start: int, others: int) -> Callable[[bytes], list[bytes]]:
    """
    Create the function that lists the keys of a request, which must end with CR LF. Repeated spaces result in empty
    keys.

    @param start: the position of the first word after the command.
    @param others: the number of words before the keys.
    """

    def asked(request: bytes) -> list[bytes]:
        keys = request[start:-2].split(b" ")
        keys.reverse()
        if others:
            del keys[-others:]
        return keys

    return asked


def _values(
    name: str, cas: bytes = b"", read: bool = True, others: int = 0, effects: Effects = READS
) -> MemcacheCommand:
    """
    Create the command of a retrieval. Its reply is any number of values, then C{END}.

    @param others: the number of words before the keys.
    """
    value = _WORD + rb"(" + _KEY + rb") [0-9]{1,20} " + _LENGTH + cas + rb"\r\n"
    after = _matcher(rb"\r\n(?:END\r\n|" + value + rb")")
    start = len(name) + 1
    return _command(
        name, value, rb"END\r\n", error=_LINE_ERROR, effects=effects, after=after, read=read,
        asked=_asked(start, others), isLookup=True, keyAt=start, word=_WORD,
    )  # fmt: skip


_CAS: Final = rb" [0-9]{1,20}"
GET: Final = _values("get")
GETS: Final = _values("gets", _CAS)
GAT: Final = _values("gat", read=False, others=1, effects=READS | WRITES)
GATS: Final = _values("gats", _CAS, read=False, others=1, effects=READS | WRITES)

SET: Final = _command("set", rb"STORED\r\n", rb"NOT_STORED\r\n", error=_ERROR, effects=WRITES)
ADD: Final = _command("add", rb"(?:NOT_)?STORED\r\n", error=_ERROR, effects=WRITES)
REPLACE: Final = _command("replace", rb"(?:NOT_)?STORED\r\n", error=_ERROR, effects=WRITES)
APPEND: Final = _command("append", rb"(?:NOT_)?STORED\r\n", error=_ERROR, effects=WRITES)
PREPEND: Final = _command("prepend", rb"(?:NOT_)?STORED\r\n", error=_ERROR, effects=WRITES)
CAS: Final = _command(
    "cas", rb"STORED\r\n", rb"EXISTS\r\n", rb"NOT_FOUND\r\n", rb"NOT_STORED\r\n", error=_ERROR, effects=WRITES
)

# The number may be padded with spaces (protocol.txt, "Increment/Decrement").
INCR: Final = _command("incr", rb"[0-9]{1,20} *\r\n", rb"NOT_FOUND\r\n", error=_LINE_ERROR, effects=WRITES)
DECR: Final = _command("decr", rb"[0-9]{1,20} *\r\n", rb"NOT_FOUND\r\n", error=_LINE_ERROR, effects=WRITES)
DELETE: Final = _command("delete", rb"DELETED\r\n", rb"NOT_FOUND\r\n", error=_LINE_ERROR, effects=DELETES)
TOUCH: Final = _command("touch", rb"TOUCHED\r\n", rb"NOT_FOUND\r\n", error=_LINE_ERROR, effects=WRITES)

FLUSH_ALL: Final = _command("flush_all", rb"OK\r\n", error=_LINE_ERROR, effects=DELETES | ADMINISTERS)
VERBOSITY: Final = _command("verbosity", rb"OK\r\n", error=_LINE_ERROR, effects=ADMINISTERS)
# A login, which has the form of a set, see txconnpool.wire.memcache.auth.
AUTH: Final = _command("auth", rb"STORED\r\n", error=_LINE_ERROR, effects=HARMLESS)
VERSION: Final = _command("version", rb"VERSION [^\r\n]*\r\n", error=_LINE_ERROR, effects=HARMLESS, read=True)

# A server that has too many connections sends this line on a new one, and closes it (memcached.c, drive_machine). To
# the first request of a connection it looks like a reply.
TOO_MANY: Final = b"ERROR Too many open connections\r\n"
GREETING: Final = VERSION.variant(errors=_matcher(_LINE_ERROR + rb"|" + TOO_MANY))

# Each line is matched as an empty body, so that `after` begins with its line end.
_STATISTIC: Final = rb"(?:STAT|ITEM|PREFIX)() [^\r\n]*()(?=\r\n)"
STATS: Final = _command(
    "stats", _STATISTIC, rb"END\r\n", rb"RESET\r\n", rb"OK\r\n", error=_LINE_ERROR, effects=ADMINISTERS,
    after=_matcher(rb"\r\n(?:END\r\n|" + _STATISTIC + rb")"), read=True,
)  # fmt: skip

# The lines end with a bare LF, those of mgdump with CR LF (crawler.c). The other replies are errors of this request.
_DUMPED: Final = rb"(?:key=|mg )()[^\n]*()(?=\n)"
LRU_CRAWLER: Final = _command(
    "lru_crawler", _DUMPED, rb"(?:END|EN)\r\n",
    error=_LINE_ERROR + rb"|(?:BUSY|BADCLASS|NOTSTARTED|ERROR(?! Too many)) [^\r\n]*\r\n", effects=ADMINISTERS,
    after=_matcher(rb"\n(?:(?:END|EN)\r\n|" + _DUMPED + rb")"), ending=b"\nEND\r\n", read=True, kind=DumpCommand,
)  # fmt: skip
CACHE_MEMLIMIT: Final = _command(
    "cache_memlimit", rb"OK\r\n", rb"MEMLIMIT_[A-Z_]+ [^\r\n]*\r\n", error=_LINE_ERROR, effects=ADMINISTERS | EXPLICIT
)

# Flags that are repeated from the request, key and opaque token, may contain CR, and even end with one.
_FLAGS: Final = rb"(?: [^\n]*)?\r\n"
_BODY: Final = rb"VA ()" + _LENGTH + _FLAGS

# The reply to a hit is VA if the request has the flag v, else HD. HD is matched as an empty body too, so that EN is the
# only reply to mg without a body, and counts as a miss.
_MG: Final = _command(
    "mg", rb"HD()(?: [^\n]*)?()(?=\r\n)", rb"EN" + _FLAGS, error=_LINE_ERROR, effects=READS, after=_LINE_END,
    ending=b"\r\n", read=True, isLookup=True,
)  # fmt: skip
_MG_VALUE: Final = _withValue(_MG, _BODY, rb"EN" + _FLAGS)
MS: Final = _command("ms", rb"(?:HD|NS|EX|NF)" + _FLAGS, error=_ERROR + rb"|" + _MS_ERROR, effects=WRITES)
MD: Final = _command("md", rb"(?:HD|NF|EX|NS)" + _FLAGS, error=_LINE_ERROR, effects=DELETES)
_MA: Final = _command("ma", rb"(?:HD|NF|EX|NS)" + _FLAGS, error=_LINE_ERROR, effects=WRITES)
_MA_VALUE: Final = _withValue(_MA, _BODY, rb"(?:NF|EX|NS)" + _FLAGS)
MN: Final = _command("mn", rb"MN\r\n", error=_LINE_ERROR, effects=HARMLESS, read=True)
ME: Final = _command("me", rb"ME [^\n]*\r\n", rb"EN\r\n", error=_LINE_ERROR, effects=READS, read=True)

#: The command of C{mg} by whether it asks for the value and whether it may write.
MG: Final = {
    (False, False): _MG,
    (True, False): _MG_VALUE,
    (False, True): _MG.variant(idempotent=False, effects=READS | WRITES),
    (True, True): _MG_VALUE.variant(idempotent=False, effects=READS | WRITES),
}

#: The command of C{ma} by whether it asks for the value.
MA: Final = {False: _MA, True: _MA_VALUE}

#: One command of each index, by C{MemcacheCommand.index}.
COMMANDS: Final = tuple(_commands)

# What memcached's counters cmd_get, cmd_set, cmd_touch, cmd_flush and cmd_meta count (proto_text.c, proto_parser.c):
# keys, and not requests.
for _group, _names in {
    "get": "get gets mg",
    "set": "set add replace append prepend cas ms",
    "touch": "touch gat gats",
    "flush": "flush_all",
    "meta": "me",
}.items():
    for _each in COMMANDS:
        if _each.name in _names.split():
            _each.group = _group

#: The indexes of the commands whose keys count as touched, not as read.
TOUCHES: Final = frozenset((GAT.index, GATS.index))

#: The variants of retrievals for requests with several keys.
SEVERAL: Final = {command: command.variant(multiKey=True) for command in (GET, GETS, GAT, GATS)}
for _single, _several in SEVERAL.items():
    _single.several = _several
    _several.part = _part = _several.variant(multiKey=True)
    _part.gathers = True
    _part.merges = _single.unites = _single in (GET, GETS)
    # In Python, to separate the values of many keys costs more than is saved.
    _several.unites = _single.unites and native.extension is not None

#: The commands of the most common requests with several keys: where their keys begin, and whether the values have a cas
#: unique.
LAYOUTS: Final = {GET: (4, False), GETS: (5, True)}
for _single, _layout in LAYOUTS.items():
    SEVERAL[_single].matchWhole = severalMatcher(*_layout)

#: The variants of commands for requests with C{noreply}, which hides all replies (C{memcached.c}, C{out_string}).
SILENT: Final = {
    command: command.silent()
    for command in (
        SET, ADD, REPLACE, APPEND, PREPEND, CAS, INCR, DECR, TOUCH, DELETE, FLUSH_ALL, VERBOSITY, CACHE_MEMLIMIT,
    )
}  # fmt: skip

#: The commands whose C{matchWhole} the extension has, and the name of the function.
NATIVE: Final = {
    GET: "wholeValue",
    GETS: "wholeUniqueValue",
    SET: "wholeStored",
    MG[True, False]: "wholeMetaValue",
    MG[True, True]: "wholeMetaValue",
}
for _each, _function in NATIVE.items():
    assert _each.matchWhole is not None
    _each.matchWhole = native.choose(_each.matchWhole, _function)

TOO_LARGE: Final = b"SERVER_ERROR object too large for cache\r\n"

_NOT_FOUND: Final = _matcher(rb"EN[ \r]")
_DONE: Final = _matcher(rb"HD[ \r]")
_COUNTED: Final = _matcher(rb"(?:HD|VA)[ \r]")

#: The variants of meta commands for requests with the flag C{q}.
QUIET: Final = {
    **{command: command.variant(hidden=_NOT_FOUND) for command in MG.values()},
    **{command: command.variant(hidden=_DONE) for command in (MS, MD)},
    **{command: command.variant(hidden=_COUNTED) for command in MA.values()},
}

_VALUE: Final = re.compile(rb"VALUE ([^ ]+) ([0-9]+) ([0-9]+)(?: ([0-9]+))?\r\n").match


def values(reply: bytes) -> list[tuple[bytes, int, bytes, int | None]]:
    """
    Parse a complete reply to a retrieval.

    @return: key, flags, value and cas unique (C{None} if it was not requested) of each hit.

    @raise WireError: the reply is an error.
    """
    found = []
    pos = 0
    while match := _VALUE(reply, pos):
        key, flags, length, unique = match.groups()
        pos = match.end() + int(length) + 2
        found.append((key, int(flags), reply[match.end() : pos - 2], None if unique is None else int(unique)))
    if reply[pos:] != b"END\r\n":
        raise WireError(f"expected values, {received(reply, pos)}")
    return found
