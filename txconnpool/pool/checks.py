# -*- test-case-name: tests.pool.test_checks -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Checks of the parameters of pools for programs. An error names the parameter as the caller wrote it, and says what is
expected. A value of a wrong type is a C{TypeError}, any other one a C{ValueError}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from inspect import signature
from math import isnan
from typing import Any, Final

from txconnpool.interfaces import IPoolObserver
from txconnpool.pool.decisions.limits import Backoff

#: Names that are no parameters, and the parameter that is meant: those of earlier development versions, of the proxy's
#: settings, and of other clients for Redis and memcached.
_MEANT: Final = {
    "acquiretimeout": "waitTimeout",
    "upstream": "serverAddresses",
    "servers": "serverAddresses",
    "server": "serverAddresses",
    "host": "serverAddresses",
    "port": "serverAddresses",
    "url": "serverAddresses",
    "poolsize": "maxClients",
    "maxconnections": "maxClients",
    "maxpoolsize": "maxClients",
    "minpoolsize": "minClients",
    "maxupstreamlifetime": "maxLifetime",
    "sockettimeout": "requestTimeout",
    "timeout": "requestTimeout",
    "socketconnecttimeout": "connectTimeout",
    "db": "database",
    "dbid": "database",
    "password": "login",
    "username": "login",
    "auth": "login",
    "upstreamauth": "login",
    "decoderesponses": "decode",
    "encoding": "decode",
    "charset": "decode",
    "keyprefix": "namespace",
    "serde": "serializer",
}


def checkSeconds(name: str, value: Any, *, above: bool = False) -> None:
    """
    Check a time in seconds, or C{None}.

    @param above: whether it must be more than 0.

    @raise TypeError: it is no number.
    @raise ValueError: it is negative, or 0 where that is not allowed.
    """
    if value is None:
        return
    expected = f"{name} must be a number of seconds {'above' if above else 'from'} 0, or None, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(expected)
    if isnan(value) or value < 0 or (above and not value):
        raise ValueError(expected)


def checkWhole(name: str, value: Any, least: int, *, most: int | None = None, optional: bool = False) -> None:
    """
    Check a whole number.

    @param optional: whether C{None} is allowed too.

    @raise TypeError: it is no whole number.
    @raise ValueError: it is out of range.
    """
    if optional and value is None:
        return
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    expected = f"{name} must be a whole number {bounds}{', or None' if optional else ''}, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(expected)
    if value < least or (most is not None and value > most):
        raise ValueError(expected)


def checkFunction(name: str, value: Any) -> None:
    """
    Check a function, or C{None}.

    @raise TypeError: it cannot be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function, or None, not {value!r}")


def checkCall(f: Any) -> None:
    """
    Check a function to call with a client.

    @raise TypeError: it cannot be called.
    """
    if not callable(f):
        raise TypeError(f"f must be a function that is called with a client, not {f!r}")


def checkType(name: str, value: Any, kind: type | tuple[type, ...], example: str) -> None:
    """
    Check an object of a class, or C{None}.

    @param example: what would be right.

    @raise TypeError: it is none.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be {example}, or None, not {value!r}")


def checkClients(minClients: Any, maxClients: Any) -> None:
    """
    Check the limits on the number of connections.

    @raise TypeError: one is no whole number.
    @raise ValueError: one is out of range.
    """
    checkWhole("maxClients", maxClients, 1)
    checkWhole("minClients", minClients, 0)
    if minClients > maxClients:
        raise ValueError(f"minClients must be at most maxClients, {maxClients}, not {minClients!r}")


def checkNames(name: str, value: Any) -> None:
    """
    Check a set of names, or C{None}.

    @raise TypeError: it is a text, which contains names too, but not those that are meant.
    """
    if value is not None and (isinstance(value, str | bytes) or not hasattr(value, "__contains__")):
        raise TypeError(f"{name} must be a set of names, such as {{'get'}}, or None, not {value!r}")


def checkMethod(method: Any) -> None:
    """
    Check the name of a method to call.

    @raise TypeError: it is no name.
    """
    if not isinstance(method, str):
        name = getattr(method, "__name__", None)
        hint = f"; is it {name!r}?" if isinstance(name, str) else ""
        raise TypeError(f"method must be the name of a method, not {method!r}{hint}")


def checkReactor(reactor: Any) -> None:
    """
    @raise TypeError: it is no reactor.
    """
    if not callable(getattr(reactor, "callLater", None)):
        raise TypeError(f"reactor must be a reactor, or None for the global one, not {reactor!r}")


#: The parameters that are seconds, of all pools.
_SECONDS: Final = ("waitTimeout", "idleTimeout", "maxLifetime", "checkIfIdleFor", "keepAlive")
_SECONDS_ABOVE: Final = ("connectTimeout", "leakThreshold")


def checkOptions(options: Mapping[str, Any]) -> None:
    """
    Check the parameters that all pools have, by their names.

    @raise TypeError: one has a wrong type.
    @raise ValueError: one has a wrong value.
    """
    for name in _SECONDS:
        checkSeconds(name, options[name])
    for name in _SECONDS_ABOVE:
        checkSeconds(name, options[name], above=True)
    checkClients(options["minClients"], options["maxClients"])
    checkWhole("pipelineDepth", options["pipelineDepth"], 1)
    checkWhole("maxWaiting", options["maxWaiting"], 1, optional=True)  # one request waits for the first connection
    checkWhole("whenDown", options["whenDown"], 1, optional=True)
    for name in ("configure", "check", "reset"):
        checkFunction(name, options[name])
    jitter = options["lifetimeJitter"]
    expected = f"lifetimeJitter must be a number from 0 to less than 1, not {jitter!r}"
    if isinstance(jitter, bool) or not isinstance(jitter, int | float):
        raise TypeError(expected)
    if not 0 <= jitter < 1:
        raise ValueError(expected)
    checkType("name", options["name"], str, "a text")
    checkType("backoff", options["backoff"], Backoff, "a Backoff, such as Backoff(initial=0.1, maximum=5)")
    observer = options["observer"]
    if observer is not None and not IPoolObserver.providedBy(observer):
        raise TypeError(f"observer must be an IPoolObserver, such as an instance of a subclass of PoolObserver, "
                        f"or None, not {observer!r}")  # fmt: skip
    if options["keepAlive"] is not None and options["check"] is None:
        raise ValueError("keepAlive needs a check")


def unknownParameter(pool: str, parameter: str, known: Iterable[str]) -> TypeError:
    """
    @param pool: the class of the pool.
    @param known: the parameters that it has.

    @return: the error for a parameter that a pool does not have, with the one that was probably meant.
    """
    plain = _plain(parameter)
    names = {_plain(name): name for name in known}
    meant = _MEANT.get(plain)
    if meant in names.values():
        hint = f"; its name is {meant!r}"
    else:
        similar = get_close_matches(plain, names, 1)
        hint = f"; is it {names[similar[0]]!r}?" if similar else ""
    return TypeError(f"{pool} has no parameter {parameter!r}{hint}")


def checkParameters(pool: str, constructor: Any, options: Mapping[str, Any], common: Iterable[str]) -> None:
    """
    Check that a pool has all parameters that a caller has given.

    @param pool: the class of the pool.
    @param constructor: has its own parameters, C{self} before them and C{options} behind them.
    @param options: the keywords that are not among them.
    @param common: the names that are allowed for these.

    @raise TypeError: there is no such parameter.
    """
    for parameter in options:
        if parameter not in common:
            raise unknownParameter(pool, parameter, [*list(signature(constructor).parameters)[1:-1], *common])


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
