# -*- test-case-name: tests.redis.test_streams -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for places on earth, and for counting distinct values (HyperLogLog).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, fail

from txconnpool.redis.arguments import Argument, Key, listOf
from txconnpool.redis.base import BaseCommands, V, number, okay
from txconnpool.redis.errors import InvalidArgument


class GeoCommands(BaseCommands[V]):
    """
    Commands for places, which are members of a sorted set. A unit is C{"m"}, C{"km"}, C{"mi"} or C{"ft"}.
    """

    def geoadd(
        self, name: Key, values: Iterable[Argument], nx: bool = False, xx: bool = False, ch: bool = False
    ) -> Deferred[int]:
        """
        Add places.

        @param values: longitude, latitude and member of each, one after the other.
        @param nx: only members that do not exist.
        @param xx: only members that exist.
        @param ch: whether to count those that were changed too.

        @return: fires with the number of places that were added.
        """
        words = [word for word, wanted in (("NX", nx), ("XX", xx), ("CH", ch)) if wanted]
        return self._do("geoadd", None, name, *words, *listOf("values", values))

    def geodist(self, name: Key, place1: Argument, place2: Argument, unit: str | None = None) -> Deferred[float | None]:
        """
        @return: fires with the distance of two places; C{None} if one of them does not exist.
        """
        return self._do("geodist", number, name, place1, place2, *([unit] if unit else []))

    def geohash(self, name: Key, *values: Argument) -> Deferred[list[str | None]]:
        """
        @return: fires with the geohash of each place; C{None} if it does not exist.
        """
        return self._do("geohash", _texts, name, *values)

    def geopos(self, name: Key, *values: Argument) -> Deferred[list[tuple[float, float] | None]]:
        """
        @return: fires with longitude and latitude of each place; C{None} if it does not exist.
        """
        return self._do("geopos", _positions, name, *values)

    def geosearch(
        self,
        name: Key,
        member: Argument | None = None,
        longitude: float | None = None,
        latitude: float | None = None,
        unit: str = "m",
        radius: float | None = None,
        width: float | None = None,
        height: float | None = None,
        sort: str | None = None,
        count: int | None = None,
        any: bool = False,
        withcoord: bool = False,
        withdist: bool = False,
        withhash: bool = False,
    ) -> Deferred[list[Any]]:
        """
        Find the places around a C{member}, or around a C{longitude} and C{latitude}: within a C{radius}, or in a box of
        a C{width} and C{height}.

        @param unit: the unit of distances.
        @param sort: C{"ASC"}: the nearest first; C{"DESC"}: the farthest first.
        @param count: how many at most; C{any}: not the nearest, but the first that are found.

        @return: fires with the members; with the other options, with a list for each: the member, its distance, its
            hash, and its longitude and latitude.
        """
        try:
            words = _around(member, longitude, latitude, unit, radius, width, height, sort, count, any)
        except InvalidArgument as error:
            return fail(error)
        given = (("WITHCOORD", withcoord), ("WITHDIST", withdist), ("WITHHASH", withhash))
        words += [word for word, wanted in given if wanted]
        return self._do("geosearch", _places, name, *words)

    def geosearchstore(
        self,
        dest: Key,
        name: Key,
        member: Argument | None = None,
        longitude: float | None = None,
        latitude: float | None = None,
        unit: str = "m",
        radius: float | None = None,
        width: float | None = None,
        height: float | None = None,
        sort: str | None = None,
        count: int | None = None,
        any: bool = False,
        storedist: bool = False,
    ) -> Deferred[int]:
        """
        Store the places that L{geosearch} finds.

        @param storedist: whether the scores of the stored members are their distances.

        @return: fires with their number.
        """
        try:
            words = _around(member, longitude, latitude, unit, radius, width, height, sort, count, any)
        except InvalidArgument as error:
            return fail(error)
        return self._do("geosearchstore", None, dest, name, *words, *(["STOREDIST"] if storedist else []))


class DistinctCommands(BaseCommands[V]):
    """
    Commands that count distinct values, nearly, in little memory (HyperLogLog).
    """

    def pfadd(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Add values.

        @return: fires with 1 if the count has changed, else with 0.
        """
        return self._do("pfadd", None, name, *values)

    def pfcount(self, *sources: Key) -> Deferred[int]:
        """
        @return: fires with the number of distinct values in all keys together. It is about 1 % wrong.
        """
        return self._do("pfcount", None, *sources)

    def pfmerge(self, dest: Key, *sources: Key) -> Deferred[bool]:
        """
        Store the union of keys.
        """
        return self._do("pfmerge", okay, dest, *sources)


def _around(
    member: Argument | None,
    longitude: float | None,
    latitude: float | None,
    unit: str,
    radius: float | None,
    width: float | None,
    height: float | None,
    sort: str | None,
    count: int | None,
    any: bool,
) -> list[Any]:
    """
    @return: the words of a search.

    @raise InvalidArgument: the parameters name no place or no area, or several.
    """
    if (longitude is None) != (latitude is None) or (member is None) == (longitude is None):
        raise InvalidArgument("geosearch needs a member, or a longitude and a latitude")
    if (width is None) != (height is None) or (radius is None) == (width is None):
        raise InvalidArgument("geosearch needs a radius, or a width and a height")
    if any and count is None:
        raise InvalidArgument("any needs a count")
    words: list[Any] = ["FROMLONLAT", longitude, latitude] if member is None else ["FROMMEMBER", member]
    words += ["BYBOX", width, height, unit] if radius is None else ["BYRADIUS", radius, unit]
    words += [sort] if sort else []
    return [*words, *([] if count is None else ["COUNT", count]), *(["ANY"] if any else [])]


def _texts(value: Any) -> list[str | None]:
    return [each.decode("ascii") if isinstance(each, bytes) else each for each in value]


def _position(value: Any) -> tuple[float, float] | None:
    return None if value is None else (float(value[0]), float(value[1]))


def _positions(value: Any) -> list[tuple[float, float] | None]:
    return list(map(_position, value))


def _place(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    member, *facts = value
    return [member, *map(_fact, facts)]


def _fact(value: Any) -> Any:
    """
    @return: a hash, a distance, which is text in RESP2, or a position.
    """
    if isinstance(value, int):
        return value
    return _position(value) if isinstance(value, list) else float(value)


def _places(value: Any) -> list[Any]:
    return list(map(_place, value))
