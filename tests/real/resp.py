# -*- test-case-name: tests.real.test_redis -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A blocking client for tests with real Redis servers. It has its own reader of replies, which shares no code with the
package.
"""

from __future__ import annotations

import socket
from typing import Any, Self

from tests.real.servers import PATIENCE, Address, connect


class ReplyError(Exception):
    """
    An error that a server has sent.
    """


class Push(list[Any]):
    """
    A frame that no request asked for.
    """


def request(*words: object) -> bytes:
    """
    @return: the bytes of a request.
    """
    data = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in data)


class Client:
    """
    One connection.
    """

    def __init__(self, address: Address, timeout: float = PATIENCE) -> None:
        """
        @param timeout: seconds that each reply may take.
        """
        self.socket: socket.socket = connect(address, timeout)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """
        Close the connection.
        """
        self._file.close()
        self.socket.close()

    def send(self, *words: object) -> None:
        """
        Send one request.
        """
        self.socket.sendall(request(*words))

    def ask(self, *words: object) -> Any:
        """
        Send one request, and read its reply.

        @raise ReplyError: it is an error.
        """
        self.send(*words)
        return self.read()

    def askText(self, *words: object) -> Any:
        """
        As L{ask}, with texts in place of bytes.
        """
        return _text(self.ask(*words))

    def result(self, *words: object) -> Any:
        """
        As L{ask}, but return an error instead of raising it.
        """
        try:
            return self.ask(*words)
        except ReplyError as error:
            return error

    def read(self) -> Any:
        """
        Read one reply or push.

        @raise EOFError: the connection was closed.
        @raise ReplyError: it is an error.
        """
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(repr(line))
        kind, rest = line[:1], line[1:-2]
        if kind in b"$=":
            size = int(rest)
            return None if size < 0 else self._exactly(size + 2)[:-2]
        if kind in b"*~>":
            items = None if rest == b"-1" else [self._item() for _ in range(int(rest))]
            return Push(items or ()) if kind == b">" else items
        if kind == b"%":
            return {_key(self._item()): self._item() for _ in range(int(rest))}
        if kind == b"-":
            raise ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"_":
            return None
        if kind == b"#":
            return rest == b"t"
        if kind == b",":
            return float(rest)
        return rest

    def _item(self) -> Any:
        try:
            return self.read()
        except ReplyError as error:
            return error

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError(repr(data))
        return data


def _key(item: Any) -> Any:
    return item if isinstance(item, bytes | int) else repr(item)


def _text(item: Any) -> Any:
    if isinstance(item, bytes):
        return item.decode()
    if isinstance(item, list):
        return [_text(each) for each in item]
    if isinstance(item, dict):
        return {_text(key): _text(value) for key, value in item.items()}
    return item
