# -*- test-case-name: tests.redis.test_errors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The exceptions of L{txconnpool.redis.RedisPool}, apart from those of L{txconnpool.errors}. All of them are
L{PoolError}s. An error reply of a server begins with a word, and each word that programs may have to tell apart is a
class; all others are L{ResponseError}s.
"""

from __future__ import annotations

from typing import Any, Final

from txconnpool.errors import PoolError


class ResponseError(PoolError):
    """
    The server has replied with an error. C{str} of the exception is its text.

    @ivar code: the first word of the text, such as C{"ERR"} or C{"WRONGTYPE"}; empty if there is none.
    """

    kind = "response"

    # The Redirect of a node of a cluster that has not executed the request. An error that a script has returned has
    # none, whatever it says.
    redirect: Any = None

    def __init__(self, text: str) -> None:
        super().__init__(text)
        word = text.partition(" ")[0]
        self.code = word if word.isupper() else ""


class WrongType(ResponseError):
    """
    The key holds a value of another type (C{WRONGTYPE}).
    """


class NoScript(ResponseError):
    """
    The server does not know the script (C{NOSCRIPT}).
    """


class ReadOnly(ResponseError):
    """
    The server is a replica, and does not write (C{READONLY}).
    """


class Loading(ResponseError):
    """
    The server is loading its data (C{LOADING}), or its primary is down (C{MASTERDOWN}).
    """


class Busy(ResponseError):
    """
    The server executes a script that takes long (C{BUSY}).
    """


class OutOfMemory(ResponseError):
    """
    The server has no memory for the command (C{OOM}).
    """


class NoPermission(ResponseError):
    """
    The user may not execute the command, or not with these keys (C{NOPERM}), or has to log in (C{NOAUTH}).
    """


class GroupExists(ResponseError):
    """
    The consumer group exists already (C{BUSYGROUP}).
    """


class ExecAborted(ResponseError):
    """
    The server has rejected a command of a transaction, and executed none of it (C{EXECABORT}).

    C{__cause__} is the error of that command.
    """


class CrossSlot(ResponseError):
    """
    The keys of one command are not on one server, or not in one slot of a cluster (C{CROSSSLOT}).
    """


class ClusterDown(ResponseError):
    """
    The cluster cannot serve the key now (C{CLUSTERDOWN}, C{TRYAGAIN}).
    """


class _Redirected(ResponseError):
    """
    @ivar slot: the number of the slot of the key.
    @ivar address: host and port of the server of the slot. The host is empty if it is that of the server that replied.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        words = text.split(" ")
        slot, host, port = "", "", ""
        if len(words) == 3:
            slot, (host, _, port) = words[1], words[2].rpartition(":")
        self.slot: int | None = int(slot) if slot.isdigit() else None
        self.address: tuple[str, int] | None = (host, int(port)) if port.isdigit() else None


class Moved(_Redirected):
    """
    Another server of the cluster has the key (C{MOVED}).

    @ivar slot: the number of the slot of the key; C{None} if the text has none, because a script made it.
    @ivar address: host and port of that server; the host is empty if it is that of the server that replied. C{None} if
        the text has none.
    """


class Ask(_Redirected):
    """
    Another server of the cluster is to be asked for the key this time (C{ASK}).

    @ivar slot: see L{Moved}.
    @ivar address: see L{Moved}.
    """


class WatchError(PoolError):
    """
    A transaction was not executed, because a watched key was changed meanwhile.
    """

    kind = "watch"


class LockError(PoolError):
    """
    A lock could not be acquired in time, or is not held.
    """

    kind = "lock"


class UndecodableReply(PoolError, ValueError):
    """
    A string in a reply is not valid in the encoding of C{decode}. The text names the command. The request was executed,
    and its connection stays open.
    """

    kind = "decode"


class InvalidArgument(PoolError, ValueError):
    """
    An argument or a command that the pool does not send. Nothing was sent.
    """

    kind = "argument"


_KINDS: Final[dict[str, type[ResponseError]]] = {
    "WRONGTYPE": WrongType,
    "NOSCRIPT": NoScript,
    "READONLY": ReadOnly,
    "LOADING": Loading,
    "MASTERDOWN": Loading,
    "BUSY": Busy,
    "OOM": OutOfMemory,
    "NOPERM": NoPermission,
    "NOAUTH": NoPermission,
    "BUSYGROUP": GroupExists,
    "EXECABORT": ExecAborted,
    "CROSSSLOT": CrossSlot,
    "CLUSTERDOWN": ClusterDown,
    "TRYAGAIN": ClusterDown,
    "MOVED": Moved,
    "ASK": Ask,
}


def errorOf(text: str) -> ResponseError:
    """
    @return: the exception for an error reply.
    """
    return _KINDS.get(text.partition(" ")[0], ResponseError)(text)
