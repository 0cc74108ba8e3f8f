# -*- test-case-name: tests.memcache.test_store -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The embedded memcached without input and output: it executes requests on a L{Store}.

The replies are those of memcached 1.6.18, byte for byte; C{tests/real/test_embedded.py} compares the two. The
differences are intentional:

  - Time is not rounded to whole seconds, and C{me} shows C{exp} as documented (the sign in 1.6.18 is wrong).
  - A delayed C{flush_all} deletes all items stored before it is due, even those read since.
  - An item whose key came in base64 keeps that mark when it is incremented, appended to or created by C{N}.
  - All items are of slab class 1. C{stats} has no groups, and the limit applies to the length of a value, not of a
    whole item.
"""

from __future__ import annotations

import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from itertools import islice
from math import ceil, inf
from typing import Final, TypeAlias
from urllib.parse import quote_from_bytes

from txconnpool.memcache.store import ITEM_OVERHEAD, Item, Store
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.integers import known, signed32, unsigned32, unsigned64

#: The version in replies. Clients parse three numbers; these are of the memcached whose behaviour is implemented.
VERSION: Final = "1.6.18-txconnpool"

_Words: TypeAlias = list[bytes]
_Flags: TypeAlias = dict[bytes, bytes]

# The mode of ms for each storage command.
_MODES: Final = {b"set": b"S", b"cas": b"S", b"add": b"E", b"replace": b"R", b"append": b"A", b"prepend": b"P"}
_STORED: Final = {b"HD": b"STORED\r\n", b"NS": b"NOT_STORED\r\n", b"EX": b"EXISTS\r\n", b"NF": b"NOT_FOUND\r\n"}

#: The highest number of a slab class (C{slabs.h}, C{MAX_NUMBER_OF_SLAB_CLASSES}).
_CLASS_MAX: Final = 63

# The number that each flag of mg returns.
_SHOWN: Final[dict[bytes, Callable[[Item, float], int]]] = {
    b"c": lambda item, now: item.cas,
    b"f": lambda item, now: item.flags,
    b"h": lambda item, now: item.fetched,
    b"l": lambda item, now: int(now - item.accessed),
    b"s": lambda item, now: len(item.value),
    b"t": lambda item, now: -1 if item.expiry == inf else ceil(item.expiry - now),
}

# Flags of later versions: the check of requests accepts them, memcached 1.6.18 does not.
_LATER: Final = {b"E", b"x"}


class Executor:
    """
    Executes requests on a store, as memcached does.

    Requests must have been checked by a request reader of L{Memcache}; they are not checked again.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._commands: dict[bytes, Callable[[_Words, bytes], bytes]] = {
            b"incr": self._incr,
            b"decr": self._incr,
            b"delete": self._delete,
            b"touch": self._touch,
            b"flush_all": self._flush,
            b"lru_crawler": self._metadump,
            b"stats": self._cachedump,
            b"verbosity": lambda words, body: b"OK\r\n",
            b"version": lambda words, body: b"VERSION %s\r\n" % VERSION.encode("ascii"),
            b"mn": lambda words, body: b"MN\r\n",
            **dict.fromkeys((b"get", b"gets", b"gat", b"gats"), self._get),
            **dict.fromkeys(_MODES, self._storage),
        }
        self._metas = {b"mg": self._mg, b"ms": self._ms, b"md": self._md, b"ma": self._ma, b"me": self._me}
        self._commands.update(dict.fromkeys(self._metas, self._meta))

    def execute(self, request: bytes, now: float) -> bytes:
        """
        Execute a request.

        @param request: one complete request, without C{noreply} and without the flag C{q}.
        @param now: the time, in seconds.

        @return: the reply.
        """
        self.store.advance(now)
        end = request.index(b"\n")
        words = [word for word in request[:end].removesuffix(b"\r").split(b" ") if word]
        return self._commands[words[0]](words, request[end + 1 : -2])

    def statistics(self, group: tuple[bytes, ...], now: float) -> bytes:
        """
        Execute C{stats}.

        @param group: the words after C{stats}: none, C{reset}, or a group. There are no slab classes.
        @param now: the time, in seconds.

        @return: the reply.
        """
        store = self.store
        store.advance(now)
        if group == (b"reset",):
            store.resetCounters()
            return b"RESET\r\n"
        items = self._groups(now).get(b" ".join(group))
        return b"ERROR\r\n" if items is None else Memcache().statistics(items.items())

    def _groups(self, now: float) -> dict[bytes, dict[str, object]]:
        store = self.store
        general: dict[str, object] = {
            "pid": os.getpid(),
            "uptime": int(max(0.0, now - store.started)),
            "time": int(now),
            "version": VERSION,
            "pointer_size": 64 if sys.maxsize > 1 << 32 else 32,
            "curr_connections": store.connections,
            **store.counters,
            "limit_maxbytes": store.size,
            "accepting_conns": 1,
            "threads": 1,
            "bytes": store.used,
            "curr_items": len(store),
        }
        return {
            b"": general,
            b"settings": {"maxbytes": store.size, "item_size_max": store.itemMax, "cas_enabled": "yes"},
            b"items": {},
            b"slabs": {"active_slabs": 0, "total_malloced": store.used},
            b"sizes": {"sizes_status": "disabled"},
            b"conns": {},
        }

    def _get(self, words: _Words, body: bytes) -> bytes:
        store, counters = self.store, self.store.counters
        touch = words[0] in (b"gat", b"gats")
        expiry = store.expiry(known(signed32, words[1])) if touch else inf
        reply = []
        for key in words[2 if touch else 1 :]:
            item = store.peek(key)
            counters["cmd_touch" if touch else "cmd_get"] += 1
            if item is None:
                counters["touch_misses" if touch else "get_misses"] += 1
                continue
            counters["touch_hits" if touch else "get_hits"] += 1
            if touch:
                item.expiry = expiry
            item.fetched = True
            store.bump(key, item)
            cas = b" %d" % item.cas if words[0][-1:] == b"s" else b""
            reply.append(b"VALUE %s %d %d%s\r\n%s\r\n" % (key, item.flags, len(item.value), cas, item.value))
        return b"".join(reply) + b"END\r\n"

    def _storage(self, words: _Words, body: bytes) -> bytes:
        item = Item(body, known(unsigned32, words[2]), self.store.expiry(known(signed32, words[3])))
        cas = known(unsigned64, words[5]) if words[0] == b"cas" else None
        return _STORED[self.store.store(_MODES[words[0]], words[1], item, cas)]

    def _incr(self, words: _Words, body: bytes) -> bytes:
        try:
            item = self.store.count(words[1], known(unsigned64, words[2]), words[0] == b"decr")
        except ValueError as error:
            return b"CLIENT_ERROR %s\r\n" % str(error).encode("ascii")
        if isinstance(item, bytes):
            return b"NOT_FOUND\r\n"
        return item.value.rstrip() + b"\r\n"

    def _delete(self, words: _Words, body: bytes) -> bytes:
        found = self.store.discard(words[1])
        self.store.counters["delete_hits" if found else "delete_misses"] += 1
        return b"DELETED\r\n" if found else b"NOT_FOUND\r\n"

    def _touch(self, words: _Words, body: bytes) -> bytes:
        return b"TOUCHED\r\n" if len(self._get([b"gat", words[2], words[1]], body)) > 5 else b"NOT_FOUND\r\n"

    def _flush(self, words: _Words, body: bytes) -> bytes:
        delay = known(signed32, words[1]) if len(words) > 1 else 0
        self.store.flush(self.store.expiry(delay) if delay > 0 else self.store.now)
        return b"OK\r\n"

    def _metadump(self, words: _Words, body: bytes) -> bytes:
        if words[1] != b"metadump":
            return b"ERROR\r\n"
        classes = [b"1"] if words[2] in (b"all", b"hash") else words[2].split(b",")
        if not all(0 < (unsigned32(each) or 0) <= _CLASS_MAX for each in classes):
            return b"BADCLASS invalid class id\r\n"
        lines = [self._metadata(key, item) for key, item in self.store.items()] if b"1" in classes else []
        return b"".join(lines) + b"END\r\n"

    def _metadata(self, key: bytes, item: Item) -> bytes:
        return b"key=%s exp=%d la=%d cas=%d fetch=%s cls=1 size=%d\n" % (
            quote_from_bytes(key, safe="").encode(),
            -1 if item.expiry == inf else item.expiry,
            item.accessed,
            item.cas,
            b"yes" if item.fetched else b"no",
            len(key) + len(item.value) + ITEM_OVERHEAD,
        )

    def _cachedump(self, words: _Words, body: bytes) -> bytes:
        if len(words) < 4:
            return b"CLIENT_ERROR bad command line\r\n"
        chosen, limit = unsigned32(words[2]), unsigned32(words[3])
        if chosen is None or limit is None:
            return b"CLIENT_ERROR bad command line format\r\n"
        if chosen > _CLASS_MAX:
            return b"CLIENT_ERROR Illegal slab id\r\n"
        shown = (each for each in self.store.items() if chosen == 1 and not each[1].binary)
        lines = [
            b"ITEM %s [%d b; %d s]\r\n" % (key, len(item.value), 0 if item.expiry == inf else item.expiry)
            for key, item in islice(shown, limit or None)
        ]
        return b"".join(lines) + b"END\r\n"

    def _meta(self, words: _Words, body: bytes) -> bytes:
        key, tokens = words[1], words[3 if words[0] == b"ms" else 2 :]
        flags = {token[:1]: token[1:] for token in tokens}
        if not _LATER.isdisjoint(flags):
            known = words[0] in (b"mg", b"ms")
            return b"CLIENT_ERROR invalid flag\r\n" if known else b"CLIENT_ERROR invalid or duplicate flag\r\n"
        if b"b" in flags:
            key = b64decode(key)
        return self._metas[words[0]](key, flags, body)

    def _echo(self, flags: _Flags, key: bytes, binary: bool, item: Item | None = None, shown: bytes = b"") -> bytes:
        """
        Execute the flags of a meta request that return something, in their order.

        @param binary: whether to return the key in base64.
        @param shown: the flags that return a number of the item. If C{t} is one of them, C{T} and C{N} set the expiry
            time when their turn comes: flags before them return the old time.
        """
        echo = b""
        for flag, token in flags.items():
            if flag == b"O":
                echo += b" O" + token
            elif flag == b"k":
                echo += b" k%s b" % b64encode(key) if binary else b" k" + key
            elif item is not None and flag in shown:
                echo += b" %s%d" % (flag, _SHOWN[flag](item, self.store.now))
            elif item is not None and flag in b"TN" and b"t" in shown:
                item.expiry = self.store.expiry(known(signed32, token))
        return echo

    def _mg(self, key: bytes, flags: _Flags, body: bytes) -> bytes:
        store = self.store
        item = store.peek(key)
        if item is not None:
            flags.pop(b"N", None)
        won = b"N" in flags
        if won:
            item = Item(b"", binary=b"b" in flags)
            store.link(key, item)
        verb = "touch" if item is not None and b"T" in flags else "get"
        store.counters[f"cmd_{verb}"] += 1
        store.counters[f"{verb}_hits" if item is not None else "get_misses"] += 1
        if item is None:
            return b"EN%s\r\n" % self._echo(flags, key, b"b" in flags)
        echo = b""
        for flag, token in flags.items():
            if flag == b"R":
                won = won or (not item.won and item.expiry < store.expiry(known(signed32, token)) < inf)
            else:
                echo += self._echo({flag: token}, key, item.binary, item, b"cfhlst")
        echo += b" Z" * item.won + b" X" * item.stale
        if won or (item.stale and not item.won):
            echo += b" W"
            item.won = True
        if b"u" not in flags:
            item.fetched = True
            store.bump(key, item)
        if b"v" in flags:
            return b"VA %d%s\r\n%s\r\n" % (len(item.value), echo, item.value)
        return b"HD%s\r\n" % echo

    def _ms(self, key: bytes, flags: _Flags, body: bytes) -> bytes:
        expiry = self.store.expiry(known(signed32, flags.get(b"T", b"0")))
        item = Item(body, known(unsigned32, flags.get(b"F", b"0")), expiry, binary=b"b" in flags)
        cas = known(unsigned64, flags[b"C"]) if b"C" in flags else None
        code = self.store.store(flags.get(b"M", b"S"), key, item, cas, b"I" in flags)
        return b"%s%s\r\n" % (code, self._echo(flags, key, b"b" in flags, item, b"c"))

    def _md(self, key: bytes, flags: _Flags, body: bytes) -> bytes:
        store = self.store
        item = store.peek(key)
        code = b"HD"
        if item is None:
            code = b"NF"
        elif b"C" in flags and item.cas != known(unsigned64, flags[b"C"]):
            code = b"EX"
        elif b"I" in flags:
            item.stale, item.won = True, False
            store.renew(item)
            if b"T" in flags:
                item.expiry = store.expiry(known(signed32, flags[b"T"]))
        else:
            store.counters["delete_hits"] += store.discard(key)
        store.counters["delete_misses"] += code != b"HD"
        return b"%s%s\r\n" % (code, self._echo(flags, key, b"b" in flags))

    def _ma(self, key: bytes, flags: _Flags, body: bytes) -> bytes:
        down = flags.get(b"M") in (b"D", b"-")
        try:
            delta, cas = (known(unsigned64, flags.get(*each)) for each in ((b"D", b"1"), (b"C", b"0")))
            item = self.store.count(key, delta, down, cas)
        except ValueError as error:
            return b"CLIENT_ERROR %s\r\n" % str(error).encode("ascii")
        if item == b"NF" and b"N" in flags:
            item = Item(b"%d" % known(unsigned64, flags.get(b"J", b"0")), binary=b"b" in flags)
            self.store.link(key, item)
        else:
            flags.pop(b"N", None)
        if isinstance(item, bytes):
            return b"%s%s\r\n" % (item, self._echo(flags, key, b"b" in flags))
        echo = self._echo(flags, key, b"b" in flags, item, b"ct")
        if b"v" in flags:
            number = item.value.rstrip()
            return b"VA %d%s\r\n%s\r\n" % (len(number), echo, number)
        return b"HD%s\r\n" % echo

    def _me(self, key: bytes, flags: _Flags, body: bytes) -> bytes:
        self.store.counters["cmd_meta"] += 1
        item = self.store.peek(key)
        if item is None:
            return b"EN\r\n"
        shown = {flag: _SHOWN[flag](item, self.store.now) for flag in _SHOWN}
        return b"ME %s exp=%d la=%d cas=%d fetch=%s cls=1 size=%d\r\n" % (
            b64encode(key) if item.binary else key,
            shown[b"t"],
            shown[b"l"],
            item.cas,
            b"yes" if item.fetched else b"no",
            len(key) + len(item.value) + ITEM_OVERHEAD,
        )
