# -*- test-case-name: tests.net.test_syntax -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Check endpoint strings without opening, reading or looking up what they name.

Twisted's own parsers read keys and certificates while they parse, look for the sockets of systemd, and fail with
exceptions about their own parameters. The checks here do not, so settings can be constructed in any process, and a
mistake is described in the words of the string. A string whose type is not known here makes Twisted import its plugins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from twisted.internet.endpoints import clientFromString, serverFromString

from txconnpool.net.reactorproxy import ReactorProxy

#: A pattern for one argument of an endpoint string, with C{%} for its name. Colons and backslashes in the value have a
#: backslash before them.
ARGUMENT = r":%s=((?:[^:\\]|\\.)*)"

#: Hosts that are this machine.
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: Patterns for the arguments of endpoint strings that name files, and directories of C{.pem} files.
FILES = "privateKey|certKey|certificate|extraCertChain|dhParameters"
DIRECTORIES = "caCertsDir|trustRoots"

_PATHS = {"path", "address", *FILES.split("|"), *DIRECTORIES.split("|")}


#: The values of arguments that are not any text: a pattern, and what it stands for.
_NUMBER = ("[0-9]{1,9}", "a number")
_TEXT = ("(?s).+", "a text")
_VALUES = {
    "host": _TEXT,
    "path": _TEXT,
    "address": _TEXT,
    "port": _NUMBER,
    "timeout": _NUMBER,
    "backlog": _NUMBER,
    "index": _NUMBER,
    "lockfile": _NUMBER,
    "mode": ("0?[0-7]{3}", "three digits up to 7, such as 660"),
    "domain": ("INET6?|UNIX", "INET, INET6 or UNIX"),
}


def _checkArgument(name: str, value: str) -> None:
    """
    @raise ValueError: an argument cannot have this value.
    """
    pattern, what = _VALUES.get(name, ("(?s).*", ""))
    if not re.fullmatch(pattern, value):
        raise ValueError(f"the {name} is {value!r}, not {what}")
    if name == "port" and int(value) > 65535:
        # Twisted takes any number for a port, and fails with a traceback when it uses it.
        raise ValueError(f"port {value} is more than 65535")


@dataclass(frozen=True)
class _Form:
    """
    The arguments of one type of endpoint string.

    @ivar names: the names of the arguments, in the order in which they stand without their names.
    @ivar required: how many of the first ones must be there.
    @ivar more: arguments that are only given with their names.
    @ivar loose: whether an argument with its name leaves the positions of others to those without, as in C{tcp:} and
        C{unix:} strings of clients.
    @ivar positions: how many arguments may stand without their names.
    """

    names: tuple[str, ...]
    required: int = 1
    more: tuple[str, ...] = ()
    loose: bool = False
    positions: int = field(default=99)

    def bind(self, kind: str, positional: list[str], named: Mapping[str, str]) -> dict[str, str]:
        """
        Find the argument that each part of a string is, and check all of them.

        @return: the arguments by name.

        @raise ValueError: an argument is missing, unknown, given twice or wrong.
        """
        free = [each for each in self.names[: self.positions] if not (self.loose and each in named)]
        values = dict(zip(free, positional, strict=False))
        if len(positional) > len(free):
            raise ValueError(f"{':'.join(positional[len(free) :])!r} is too much for {kind}:")
        for name, value in named.items():
            if name not in self.names + self.more:
                known = ", ".join(self.names + self.more)
                raise ValueError(f"{kind}: has no argument {name!r}, only {known}")
            if name in values:
                raise ValueError(f"the {name} is given twice")
            values[name] = value
        for name in self.names[: self.required]:
            if name not in values:
                raise ValueError(f"the {name} is missing")
        for name, value in values.items():
            _checkArgument(name, value)
        return values


# The arguments are those of _parseTCP, _parseSSL, _parseUNIX, _SystemdParser, _parseClientTCP, _parseClientUNIX and
# _parseClientTLS in twisted.internet.endpoints.

_CLIENTS = {
    "tcp": _Form(("host", "port", "timeout", "bindAddress"), 2, loose=True, positions=2),
    "unix": _Form(("path", "timeout", "lockfile"), loose=True, positions=1),
    "tls": _Form(
        ("host", "port", "timeout", "bindAddress", "certificate", "privateKey", "trustRoots", "endpoint"), 2
    ),
}  # fmt: skip

#: L{txconnpool.net.listening.Listener} adds the last two arguments of C{ssl:}.
_SERVERS = {
    "tcp": _Form(("port", "interface", "backlog")),
    "tcp6": _Form(("port", "interface", "backlog")),
    "ssl": _Form(
        ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters"),
        more=("caCertsDir", "endpoint"),
    ),
    "tls": _Form(("path", "port", "backlog", "interface")),
    "unix": _Form(("address", "mode", "backlog", "lockfile")),
    "systemd": _Form(("domain", "index", "name")),
}


def checkClient(description: str) -> None:
    """
    Check the syntax of a client endpoint string.

    @raise Exception: the string is wrong: a C{ValueError}, or whatever else the parsers of Twisted's plugins raise.
    """
    positional, named = argumentsOf(description)
    kind = positional.pop(0).lower() if positional else ""
    if kind == "ssl":
        raise ValueError("ssl: does not verify servers; expected tls:HOST:PORT, with trustRoots=DIRECTORY if needed")
    if kind not in _CLIENTS:
        _checkKind(kind, ("haproxy", "systemd", "tcp6"))
        clientFromString(ReactorProxy(), description)
        return
    values = _CLIENTS[kind].bind(kind, positional, named)
    if values.get("port") == "0":
        raise ValueError("the port is '0', not that of a server")
    if "endpoint" in values:
        checkClient(values["endpoint"])


def checkServer(description: str) -> None:
    """
    Check the syntax of a server endpoint string, as L{txconnpool.net.listening.Listener} takes it.

    @raise Exception: the string is wrong: a C{ValueError}, or whatever else the parsers of Twisted's plugins raise.
    """
    positional, named = argumentsOf(description)
    kind = positional.pop(0) if positional else ""
    if kind.lower() == "haproxy":
        checkServer(description.partition(":")[2])
        return
    if kind not in _SERVERS:
        _checkKind(kind, ("memory", *_SERVERS))
        serverFromString(ReactorProxy(), description)
        return
    values = _SERVERS[kind].bind(kind, positional, named)
    if kind == "systemd" and ("index" in values) is ("name" in values):
        raise ValueError("expected either name= or index= of the socket")
    if "endpoint" in values:
        checkServer(values["endpoint"])


def _checkKind(kind: str, others: tuple[str, ...]) -> None:
    """
    @param others: types that exist elsewhere, or in other letters.

    @raise ValueError: it is not the name of a type that a plugin may have.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", kind) or kind.lower() in others:
        raise ValueError(f"Unknown endpoint type: {kind!r}")


def hostOf(description: str) -> str:
    """
    @param description: a C{tls:} client endpoint string.

    @return: the host for which the certificate of the server must be.
    """
    (kind, *positional), named = argumentsOf(description)
    return _CLIENTS[kind.lower()].bind(kind, positional, named)["host"]


def withAbsolutePaths(description: str, directory: str, listening: bool) -> str:
    """
    Make the relative paths in an endpoint string absolute: those of UNIX sockets, keys and certificates.

    @param description: an endpoint string that L{checkServer} or L{checkClient} accepts.
    @param directory: the absolute path of the directory that the paths are relative to.
    @param listening: whether it is the string of a server endpoint.
    """
    kind, _, rest = description.partition(":")
    if kind.lower() == "haproxy":
        return f"{kind}:{withAbsolutePaths(rest, directory, listening)}"
    form = (_SERVERS if listening else _CLIENTS).get(kind.lower())
    if form is None:
        return description
    _, named = argumentsOf(description)
    free = iter([each for each in form.names if not (form.loose and each in named)])
    pieces = [kind]
    for piece in re.findall(r":((?:[^:\\]|\\.)*)", description, re.DOTALL):
        found = re.match(r"((?:[^=\\]|\\.)*)=(.*)", piece, re.DOTALL)
        name, value = (found[1], found[2]) if found else (next(free), piece)
        if name == "endpoint":
            value = _escaped(withAbsolutePaths(_unescaped(value), directory, listening))
        elif name in _PATHS and not value.startswith("/") and value:
            value = _escaped(os.path.join(directory, "")) + value
        pieces.append(f"{name}={value}" if found else value)
    return ":".join(pieces)


def argumentsOf(description: str) -> tuple[list[str], dict[str, str]]:
    """
    Split an endpoint string, as Twisted does.

    @return: the type and the other arguments without a name, and the arguments with a name.

    @raise ValueError: a backslash is at the end.
    """
    if not re.fullmatch(r"(?:[^\\]|\\.)*", description, re.DOTALL):
        raise ValueError("a backslash at the end")
    positional: list[str] = []
    named: dict[str, str] = {}
    for piece in re.findall(r"(?:^|:)((?:[^:\\]|\\.)*)", description, re.DOTALL):
        first, equals, value = re.findall(r"^((?:[^=\\]|\\.)*)(=?)(.*)", piece, re.DOTALL)[0]
        if equals:
            named[_unescaped(first)] = _unescaped(value)
        else:
            positional.append(_unescaped(first))
    return positional, named


def reaches(client: str, server: str) -> bool:
    """
    Compare endpoint strings, without looking up names.

    @param client: a client endpoint string.
    @param server: a server endpoint string.

    @return: whether a connection to C{client} certainly leads to C{server}: both have the same path, or the same port,
        and C{client} has the address of C{server} or of this machine.
    """
    path, host, port = _destination(client)
    ownPath, interface, ownPort = _destination(server)
    if path or ownPath:
        return path == ownPath
    isHere = host == interface or (host in _LOOPBACK and interface in ("", "0.0.0.0", "::", "127.0.0.1"))
    return isHere and port == ownPort and port not in ("", "0")


def _destination(description: str) -> tuple[str, str, str]:
    """
    @return: the path of a UNIX socket, the host or interface, and the port; empty if there is none.
    """
    (kind, *args), named = argumentsOf(description)
    if kind == "unix":
        return named.get("address") or named.get("path") or "".join(args[:1]), "", ""
    if kind not in ("tcp", "tcp6", "tls", "ssl"):
        return "", "", ""
    port = named.get("port") or "".join(args[-1:])
    host = named.get("host") or named.get("interface") or "".join(args[:-1])
    return "", host, port


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _escaped(text: str) -> str:
    return re.sub(r"([:\\= ])", r"\\\1", text)
