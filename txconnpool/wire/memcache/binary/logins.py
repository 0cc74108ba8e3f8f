# -*- test-case-name: tests.wire.memcache.binary -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Chooses the protocol of a client by its first byte, as memcached does, and reads the logins of memcached's binary
protocol.

A login is the SASL mechanism C{PLAIN} in one packet (C{proto_bin.c}, C{process_bin_complete_sasl_auth}). Any other
request before it gets an error, and its client is closed. This includes the request for the version, which memcached
answers: the version is that of a server, and clients without a login do not reach one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from txconnpool.wire import ADMIT, ANSWER, CLOSE, MORE, SWITCH, Foreign, Frame, IRequestReader, Login
from txconnpool.wire.memcache.auth import LINE_MAX
from txconnpool.wire.memcache.binary.packets import (
    AUTH_ERROR,
    HEADER,
    INVALID,
    REQUEST,
    SASL_AUTH,
    SASL_LIST,
    SASL_STEP,
    UNKNOWN_COMMAND,
    failure,
    packet,
    readHeader,
)

MECHANISM: Final = b"PLAIN"

# A TLS client begins with a record of type 22 (RFC 8446, section 5.1), a client of Redis with the length of an array.
_FOREIGN: Final = re.compile(
    rb"(?P<tls>\x16\x03)|(?P<http>(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PRI) [/*]|CONNECT )|(?P<redis>\*[0-9]+\r\n\$)"
).match

#: The text of the reply to a successful login.
AUTHENTICATED: Final = b"Authenticated"


class ProtocolChooser(IRequestReader):
    """
    The first reader of a client: an L{IRequestReader<txconnpool.wire.IRequestReader>} that chooses another one. It has
    no state.
    """

    def __init__(self, text: IRequestReader, binary: IRequestReader) -> None:
        self._text = text
        self._binary = binary

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Choose the reader for the protocol of the client, or close it if it speaks one of others that are often
        configured by mistake.
        """
        foreign = _FOREIGN(data, pos)
        if foreign is not None and foreign.lastgroup is not None:
            last = b"" if foreign.lastgroup == "http" else b"ERROR\r\n"  # for a TLS client: a wrong version number
            return CLOSE, len(data), 0, Foreign(foreign.lastgroup, last)
        return SWITCH, pos, 0, self._binary if data[pos] == REQUEST else self._text


class BinaryLoginReader(IRequestReader):
    """
    Reads the requests of a client of the binary protocol until it has logged in: an
    L{IRequestReader<txconnpool.wire.IRequestReader>}.
    """

    def __init__(self, check: Callable[[Login | None], bool]) -> None:
        """
        @param check: called with the user and password of each attempt, or C{None} if they could not be read. Returns
            whether the client is logged in.
        """
        self._check = check

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Read a client's bytes from C{pos}, see L{IRequestReader.read<txconnpool.wire.IRequestReader.read>}.

        @return: the frame; with C{ADMIT} if the client is logged in.
        """
        if len(data) - pos < HEADER:
            return MORE, pos, 0, HEADER
        if data[pos] != REQUEST:
            return CLOSE, len(data), 0, b""
        opcode, keyLength, extras, body, opaque, _ = readHeader(data, pos + 1)
        start = pos + HEADER
        stop = start + extras + keyLength
        end = start + body
        status = _status(opcode, keyLength, extras, body)
        if status:
            return CLOSE, len(data), 0, failure(opcode, opaque, status)
        if end > len(data):
            return MORE, pos, 0, end - pos
        if opcode == SASL_LIST:
            return ANSWER, end, 0, packet(opcode, opaque, MECHANISM)
        login = None
        if opcode == SASL_AUTH and data[start:stop] == MECHANISM:
            login = _login(data[stop:end])
        if self._check(login):
            return ADMIT, end, 0, packet(opcode, opaque, AUTHENTICATED)
        return ANSWER, end, 0, failure(opcode, opaque, AUTH_ERROR)


def _status(opcode: int, keyLength: int, extras: int, body: int) -> int:
    """
    @return: the status of the error that ends the connection; 0 if there is none.
    """
    if keyLength + extras > body:
        return UNKNOWN_COMMAND
    if opcode not in (SASL_LIST, SASL_AUTH, SASL_STEP):
        return AUTH_ERROR
    if extras or (body if opcode == SASL_LIST else not keyLength) or body > LINE_MAX:
        return INVALID
    return 0


def _login(message: bytes) -> Login | None:
    """
    @param message: the message of the mechanism C{PLAIN} (RFC 4616): the identity to act as, which may only be the user
        or empty, the user and the password, with NUL between them.

    @return: the user and the password; C{None} if it is another message.
    """
    words: list[Any] = message.split(b"\0")
    if len(words) != 3 or words[0] not in (b"", words[1]):
        return None
    return words[1], words[2]
