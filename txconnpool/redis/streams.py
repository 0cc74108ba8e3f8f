# -*- test-case-name: tests.redis.test_streams -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail

from txconnpool.redis.arguments import Argument, Key, listOf, mappingOf
from txconnpool.redis.base import BaseCommands, V, flat, mapping, okay
from txconnpool.redis.errors import InvalidArgument

#: An entry: its id, and its fields; C{None} if it was deleted.
Entry = tuple[V, dict[V, V] | None]


class StreamCommands(BaseCommands[V]):
    """
    Commands for streams. The id of an entry is such as C{b"1526919030474-55"}.
    """

    def xadd(
        self,
        name: Key,
        fields: Mapping[Any, Argument],
        id: Argument = "*",
        maxlen: int | None = None,
        approximate: bool = True,
        nomkstream: bool = False,
        minid: Argument | None = None,
        limit: int | None = None,
    ) -> Deferred[V | None]:
        """
        Add an entry.

        @param id: its id; C{"*"}: the server makes one.
        @param nomkstream: whether to add nothing if there is no such stream.
        @param maxlen: see L{xtrim}, as for C{approximate}, C{minid} and C{limit}.

        @return: fires with its id; C{None} if nothing was added.
        """
        words = ["NOMKSTREAM"] if nomkstream else []
        try:
            words += _trimming(maxlen, approximate, minid, limit)
        except InvalidArgument as error:
            return fail(error)
        return self._do("xadd", None, name, *words, id, *flat(mappingOf("fields", fields).items()))

    def xtrim(
        self,
        name: Key,
        maxlen: int | None = None,
        approximate: bool = True,
        minid: Argument | None = None,
        limit: int | None = None,
    ) -> Deferred[int]:
        """
        Remove the oldest entries.

        @param maxlen: how many entries stay.
        @param approximate: whether some more may stay, which takes less time.
        @param minid: the least id that stays, in place of C{maxlen}.
        @param limit: how many entries to look at, if C{approximate}.

        @return: fires with the number of entries that were removed.
        """
        try:
            words = _trimming(maxlen, approximate, minid, limit)
        except InvalidArgument as error:
            return fail(error)
        return self._do("xtrim", None, name, *words)

    def xlen(self, name: Key) -> Deferred[int]:
        """
        @return: fires with the number of entries.
        """
        return self._do("xlen", None, name)

    def xdel(self, name: Key, *ids: Argument) -> Deferred[int]:
        """
        Delete entries.

        @return: fires with the number of those that existed.
        """
        return self._do("xdel", None, name, *ids)

    def xrange(
        self, name: Key, min: Argument = "-", max: Argument = "+", count: int | None = None
    ) -> Deferred[list[Entry[V]]]:
        """
        @param count: how many entries at most.

        @return: fires with the entries from the id C{min} to the id C{max}.
        """
        return self._do("xrange", entries, name, min, max, *_counted(count))

    def xrevrange(
        self, name: Key, max: Argument = "+", min: Argument = "-", count: int | None = None
    ) -> Deferred[list[Entry[V]]]:
        """
        As L{xrange}, the latest entry first.
        """
        return self._do("xrevrange", entries, name, max, min, *_counted(count))

    def xread(
        self, streams: Mapping[Any, Argument], count: int | None = None, block: int | None = None
    ) -> Deferred[dict[V, list[Entry[V]]]]:
        """
        Read the entries of streams after some ids.

        @param streams: the ids by stream; C{"$"}: entries that are added from now on.
        @param count: how many entries of each stream at most.
        @param block: how many milliseconds to wait if there are none; 0: no limit. The call has a connection of its own
            meanwhile, which is closed if the call is cancelled.

        @return: fires with the entries by stream, without the streams that have none.
        """
        words = [*_counted(count), *([] if block is None else ["BLOCK", block])]
        streams = mappingOf("streams", streams)
        found = self._do("xread", byStream, *words, "STREAMS", *streams, *streams.values())
        return found.addCallback(self._bareKeys)

    def xreadgroup(
        self,
        groupname: Key,
        consumername: Key,
        streams: Mapping[Any, Argument],
        count: int | None = None,
        block: int | None = None,
        noack: bool = False,
    ) -> Deferred[dict[V, list[Entry[V]]]]:
        """
        Read entries as a consumer of a group.

        @param streams: C{">"} by stream: entries that no consumer has had yet; an id: those that this consumer has had
            after it, and has not acknowledged.
        @param count: see L{xread}, as for C{block}.
        @param noack: whether the entries need not be acknowledged.

        @return: fires with the entries by stream, without the streams that have none.
        """
        words = [*_counted(count), *([] if block is None else ["BLOCK", block]), *(["NOACK"] if noack else [])]
        streams = mappingOf("streams", streams)
        found = self._do(
            "xreadgroup", byStream, "GROUP", groupname, consumername, *words, "STREAMS", *streams, *streams.values()
        )
        return found.addCallback(self._bareKeys)

    def _bareKeys(self, value: dict[Any, Any]) -> dict[Any, Any]:
        return {self._bare(key): each for key, each in value.items()}


class GroupCommands(BaseCommands[V]):
    """
    Commands for the consumer groups of streams.
    """

    def xack(self, name: Key, groupname: Key, *ids: Argument) -> Deferred[int]:
        """
        Acknowledge entries.

        @return: fires with the number of those that waited for it.
        """
        return self._do("xack", None, name, groupname, *ids)

    def xgroup_create(
        self, name: Key, groupname: Key, id: Argument = "$", mkstream: bool = False, entries_read: int | None = None
    ) -> Deferred[bool]:
        """
        Create a group.

        @param id: consumers get the entries after it; C{"$"}: those that are added from now on.
        @param mkstream: whether to create the stream, if there is none.
        @param entries_read: how many entries count as read (Redis 7.0).

        @return: fires with C{True}; fails with L{GroupExists<txconnpool.redis.GroupExists>} if there is such a group.
        """
        words = [*(["MKSTREAM"] if mkstream else []), *_read(entries_read)]
        return self._do("xgroup|create", okay, name, groupname, id, *words)

    def xgroup_setid(self, name: Key, groupname: Key, id: Argument, entries_read: int | None = None) -> Deferred[bool]:
        """
        Set the id after which consumers get entries, see L{xgroup_create}.
        """
        return self._do("xgroup|setid", okay, name, groupname, id, *_read(entries_read))

    def xgroup_destroy(self, name: Key, groupname: Key) -> Deferred[bool]:
        """
        @return: fires with whether there was such a group.
        """
        return self._do("xgroup|destroy", bool, name, groupname)

    def xgroup_createconsumer(self, name: Key, groupname: Key, consumername: Key) -> Deferred[int]:
        """
        @return: fires with 1 if the consumer was created; 0 if there is such a consumer.
        """
        return self._do("xgroup|createconsumer", None, name, groupname, consumername)

    def xgroup_delconsumer(self, name: Key, groupname: Key, consumername: Key) -> Deferred[int]:
        """
        Delete a consumer.

        @return: fires with the number of entries that it has not acknowledged, which nobody gets any more.
        """
        return self._do("xgroup|delconsumer", None, name, groupname, consumername)

    def xpending(self, name: Key, groupname: Key) -> Deferred[dict[str, Any]]:
        """
        @return: fires with what was not acknowledged: C{pending}, the number of entries; C{min} and C{max}, the least
            and the greatest id; C{consumers}, a list with C{name} and C{pending} of each.
        """
        return self._do("xpending", _pending, name, groupname)

    def xpending_range(
        self,
        name: Key,
        groupname: Key,
        min: Argument,
        max: Argument,
        count: int,
        consumername: Key | None = None,
        idle: int | None = None,
    ) -> Deferred[list[dict[str, Any]]]:
        """
        @param consumername: only entries of this consumer.
        @param idle: only entries that were delivered so many milliseconds ago.

        @return: fires with entries that were not acknowledged: C{message_id}, C{consumer}, C{time_since_delivered} in
            milliseconds, C{times_delivered}.
        """
        words = [*([] if idle is None else ["IDLE", idle]), min, max, count]
        return self._do("xpending", _pendingEntries, name, groupname, *words, *([consumername] if consumername else []))

    def xclaim(
        self,
        name: Key,
        groupname: Key,
        consumername: Key,
        min_idle_time: int,
        message_ids: Iterable[Argument],
        idle: int | None = None,
        time: int | None = None,
        retrycount: int | None = None,
        force: bool = False,
        justid: bool = False,
    ) -> Deferred[list[Any]]:
        """
        Take over entries that another consumer has not acknowledged.

        @param min_idle_time: only those that were delivered so many milliseconds ago.
        @param idle: sets the milliseconds since they were delivered.
        @param time: sets when they were delivered, in milliseconds since 1970.
        @param retrycount: sets how often they were delivered.
        @param force: whether entries that no consumer has had are taken too.
        @param justid: whether only the ids are of interest; they do not count as delivered then.

        @return: fires with the entries; with their ids, if C{justid}.
        """
        words: list[Any] = [*([] if idle is None else ["IDLE", idle]), *([] if time is None else ["TIME", time])]
        words += [*([] if retrycount is None else ["RETRYCOUNT", retrycount]), *(["FORCE"] if force else [])]
        words += ["JUSTID"] if justid else []
        ids = listOf("message_ids", message_ids)
        return self._do(
            "xclaim", None if justid else entries, name, groupname, consumername, min_idle_time, *ids, *words
        )

    def xautoclaim(
        self,
        name: Key,
        groupname: Key,
        consumername: Key,
        min_idle_time: int,
        start_id: Argument = "0-0",
        count: int | None = None,
        justid: bool = False,
    ) -> Deferred[list[Any]]:
        """
        As L{xclaim}, for entries from C{start_id} on.

        @param count: how many entries at most.

        @return: fires with the next C{start_id}, the entries, and the ids of those that were deleted (Redis 7.0); with
            the ids of the entries only, if C{justid}.
        """
        words = [*_counted(count), *(["JUSTID"] if justid else [])]
        convert = _second if justid else _claimed
        return self._do("xautoclaim", convert, name, groupname, consumername, min_idle_time, start_id, *words)

    def xinfo_stream(self, name: Key) -> Deferred[dict[str, Any]]:
        """
        @return: fires with facts about a stream, by name, such as C{length} and C{last-generated-id}.
        """
        return self._do("xinfo|stream", _streamFacts, name)

    def xinfo_groups(self, name: Key) -> Deferred[list[dict[str, Any]]]:
        """
        @return: fires with facts about each group of a stream, by name, such as C{name} and C{lag}.
        """
        return self._do("xinfo|groups", _eachFacts, name)

    def xinfo_consumers(self, name: Key, groupname: Key) -> Deferred[list[dict[str, Any]]]:
        """
        @return: fires with facts about each consumer of a group, by name, such as C{name} and C{idle}.
        """
        return self._do("xinfo|consumers", _eachFacts, name, groupname)


def _trimming(maxlen: int | None, approximate: bool, minid: Argument | None, limit: int | None) -> list[Any]:
    if maxlen is not None and minid is not None:
        raise InvalidArgument("maxlen and minid exclude each other")
    if maxlen is None and minid is None:
        return []
    words: list[Any] = ["MAXLEN" if minid is None else "MINID", *(["~"] if approximate else [])]
    return [*words, maxlen if minid is None else minid, *([] if limit is None else ["LIMIT", limit])]


def _counted(count: int | None) -> list[Any]:
    return [] if count is None else ["COUNT", count]


def _read(entries: int | None) -> list[Any]:
    return [] if entries is None else ["ENTRIESREAD", entries]


def _entry(value: Any) -> Any:
    return None if value is None else (value[0], None if value[1] is None else mapping(value[1]))


def entries(value: Any) -> list[Any]:
    """
    @return: entries with their fields as dictionaries.
    """
    return list(map(_entry, value))


def byStream(value: Any) -> dict[Any, Any]:
    """
    @return: the entries by stream, of a map of RESP3 or an array of pairs of RESP2. There are none after a timeout.
    """
    pairs = value.items() if isinstance(value, dict) else value or ()
    return {name: entries(each) for name, each in pairs}


def _pending(value: Any) -> dict[str, Any]:
    count, least, most, consumers = value
    found = [{"name": name, "pending": int(number)} for name, number in consumers or ()]
    return {"pending": count, "min": least, "max": most, "consumers": found}


def _pendingEntries(value: Any) -> list[dict[str, Any]]:
    names = ("message_id", "consumer", "time_since_delivered", "times_delivered")
    return [dict(zip(names, each, strict=True)) for each in value]


def _second(value: Any) -> Any:
    return value[1]


def _claimed(value: Any) -> list[Any]:
    return [value[0], entries(value[1]), *value[2:]]


def _facts(value: Any) -> dict[str, Any]:
    return {key if isinstance(key, str) else key.decode(): each for key, each in mapping(value).items()}


def _eachFacts(value: Any) -> list[dict[str, Any]]:
    return list(map(_facts, value))


def _streamFacts(value: Any) -> dict[str, Any]:
    facts = _facts(value)
    return {**facts, **{name: _entry(facts[name]) for name in ("first-entry", "last-entry") if name in facts}}
