# -*- test-case-name: tests.memcache.test_store -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The items of the embedded memcached. L{txconnpool.memcache.execution} executes requests on them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

#: The bytes counted for an item besides its key and its value: the memory that CPython 3.11 uses on 64-bit machines.
ITEM_OVERHEAD: Final = 300

#: The maximum length of a value, in bytes: memcached's default.
ITEM_MAX: Final = 1 << 20

#: The minimum size of a store, in bytes: an item with the longest possible key fits.
STORE_MIN: Final = 1 << 10

#: A larger expiry time is a UNIX time, not a number of seconds from now (C{memcached.c}, C{REALTIME_MAXDELTA}).
RELATIVE_MAX: Final = 30 * 24 * 3600

# The part of a value that strtoull parses.
_NUMBER: Final = re.compile(rb"\s*\+?0*(\d{1,20})(?=[\s\0]|\Z)")

_COUNTERS: Final = (
    *("cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "cmd_meta"),
    *("get_hits", "get_misses", "get_expired", "touch_hits", "touch_misses"),
    *("incr_hits", "incr_misses", "decr_hits", "decr_misses", "delete_hits", "delete_misses"),
    *("cas_hits", "cas_misses", "cas_badval", "total_items", "total_connections", "evictions"),
)


@dataclass(slots=True)
class Item:
    """
    One item of a L{Store}.

    @ivar expiry: when the item expires, in seconds on the clock of the store.
    @ivar accessed: when the item was last used, in seconds on the same clock.
    @ivar cas: a number that changes with every change of the item.
    @ivar binary: whether the key came in base64.
    @ivar fetched: whether the item was read since it was stored.
    @ivar stale: whether the item was invalidated (C{md} or C{ms} with the flag C{I}).
    @ivar won: whether a client has been asked (flag C{W} of a reply) to store a new value.
    """

    value: bytes
    flags: int = 0
    expiry: float = inf
    accessed: float = 0.0
    cas: int = 0
    binary: bool = False
    fetched: bool = False
    stale: bool = False
    won: bool = False


class Store:
    """
    The items of one embedded memcached. The least recently used items are evicted to make room for new ones. An expired
    item is removed when a request looks for it.

    @ivar size: the maximum size of all items together, in bytes; see L{ITEM_OVERHEAD}.
    @ivar itemMax: the maximum length of a value, in bytes.
    @ivar used: the size of all items together, in bytes.
    @ivar now: the time of the current request, in seconds.
    @ivar started: when the first client connected, in seconds.
    @ivar counters: memcached's statistics.
    @ivar connections: the number of open connections.
    """

    def __init__(self, size: int = 64 << 20) -> None:
        self.size = size
        self.itemMax = min(ITEM_MAX, size - ITEM_OVERHEAD - 250)
        self.used = 0
        self.now = 0.0
        self.started = inf
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self._items: OrderedDict[bytes, Item] = OrderedDict()
        self._cas = 0
        self._flushAt = inf
        self.connections = 0

    def __len__(self) -> int:
        return len(self._items)

    def advance(self, now: float) -> None:
        """
        Set the time for the next request. If a delayed flush is due by then, delete all items.

        @param now: seconds.
        """
        self.now = now
        if self._flushAt <= now:
            self._flushAt = inf
            self._items.clear()
            self.used = 0

    def expiry(self, exptime: int) -> float:
        """
        Convert an expiry time.

        @param exptime: the number in a request: 0 for never, a negative number for at once, up to L{RELATIVE_MAX} the
            seconds from now, above that a UNIX time.

        @return: when an item expires, in seconds on the clock of the store.
        """
        if exptime == 0:
            return inf
        return self.now + exptime if 0 < exptime <= RELATIVE_MAX else exptime

    def peek(self, key: bytes) -> Item | None:
        """
        Find an item without counting it as used.

        @return: the item, or C{None} if there is none or it has expired.
        """
        item = self._items.get(key)
        if item is not None and item.expiry <= self.now:
            self._remove(key)
            self.counters["get_expired"] += 1
            return None
        return item

    def items(self) -> Iterator[tuple[bytes, Item]]:
        """
        @return: all keys and items that have not expired, the one used last first.
        """
        return ((key, item) for key, item in reversed(self._items.items()) if item.expiry > self.now)

    def bump(self, key: bytes, item: Item) -> None:
        """
        Mark an item as used now, so that it is evicted last.
        """
        item.accessed = self.now
        self._items.move_to_end(key)

    def link(self, key: bytes, item: Item) -> None:
        """
        Store an item, replace the one with the same key, and evict items until the store is within its size.
        """
        if key in self._items:
            self._remove(key)
        self._items[key] = item
        item.accessed = self.now
        self.renew(item)
        self.counters["total_items"] += 1
        self.used += len(key) + len(item.value) + ITEM_OVERHEAD
        while self.used > self.size:
            self._remove(next(iter(self._items)))
            self.counters["evictions"] += 1

    def renew(self, item: Item) -> None:
        """
        Give a changed item the next C{cas} number.
        """
        self._cas = item.cas = self._cas + 1

    def discard(self, key: bytes) -> bool:
        """
        Delete an item.

        @return: whether there was one.
        """
        found = self.peek(key) is not None
        if found:
            self._remove(key)
        return found

    def _remove(self, key: bytes) -> None:
        self.used -= len(key) + len(self._items.pop(key).value) + ITEM_OVERHEAD

    def store(self, mode: bytes, key: bytes, new: Item, cas: int | None = None, invalidate: bool = False) -> bytes:
        """
        Store an item in one of the modes of C{ms}.

        @param mode: C{S} for set, C{E} for add, C{R} for replace, C{A} for append, C{P} for prepend.
        @param cas: the number that an existing item must have; no item has 0.
        @param invalidate: whether to store the new item as stale if C{cas} is lower than that of the existing item.

        @return: C{HD} (stored), C{NS} (not stored), C{EX} (changed in the meantime) or C{NF} (not found).
        """
        old = self.peek(key)
        checked = cas is not None and mode in b"SR"
        self.counters["cmd_set"] += 1
        if old is None:
            self.counters["cas_misses"] += checked
            if checked or mode not in b"SE":
                return b"NF" if checked else b"NS"
        elif mode == b"E":
            self.bump(key, old)
            return b"NS"
        elif checked and cas != old.cas:
            if not (invalidate and cas and cas < old.cas):
                self.counters["cas_badval"] += 1
                return b"EX"
            new.expiry, new.stale, new.won = old.expiry, True, old.won
        elif mode in b"AP":
            if cas and cas != old.cas:
                return b"EX"
            if len(old.value) + len(new.value) > self.itemMax:
                return b"NS"
            new.value = old.value + new.value if mode == b"A" else new.value + old.value
            new.flags, new.expiry, new.binary = old.flags, old.expiry, old.binary
        self.counters["cas_hits"] += checked
        self.link(key, new)
        return b"HD"

    def count(self, key: bytes, delta: int, down: bool, cas: int = 0) -> Item | bytes:
        """
        Increment or decrement a number.

        @param delta: how much to add or subtract.
        @param down: whether to subtract.
        @param cas: the C{cas} number that the item must have; 0: any.

        @return: the changed item, or C{NF} (not found), or C{EX} (another C{cas} number).

        @raise ValueError: the value is not a number.
        """
        item = self.peek(key)
        if item is None:
            self.counters["decr_misses" if down else "incr_misses"] += 1
            return b"NF"
        if item.value and cas and cas != item.cas:
            return b"EX"
        match = _NUMBER.match(item.value)
        if match is None or int(match[1]) >= 1 << 64:
            raise ValueError("cannot increment or decrement non-numeric value")
        self.counters["decr_hits" if down else "incr_hits"] += 1
        number = b"%d" % (max(int(match[1]) - delta, 0) if down else (int(match[1]) + delta) % (1 << 64))
        if len(number) > len(item.value):
            item = Item(number, item.flags, item.expiry, binary=item.binary)
            self.link(key, item)
        else:
            # memcached overwrites the value in place and fills it up with spaces, which clients can see.
            item.value = number.ljust(len(item.value))
            self.renew(item)
            self.bump(key, item)
        return item

    def flush(self, at: float) -> None:
        """
        Delete all items, at once or later.

        @param at: when, in seconds on the clock of the store.
        """
        self.counters["cmd_flush"] += 1
        self._flushAt = at
        self.advance(self.now)

    def resetCounters(self) -> None:
        """
        Set all counters to 0.
        """
        self.counters.update(dict.fromkeys(_COUNTERS, 0))
