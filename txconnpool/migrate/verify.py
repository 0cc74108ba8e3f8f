# -*- test-case-name: tests.migrate.test_verify -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Compare where two running proxies look for keys.

A key is set through one proxy and read through the other, and then the other way round. If it is found both times, both
proxies send it to the same server. The keys begin with a prefix and a random number, so no other data is touched.
"""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

#: The number of keys.
KEYS = 1000

#: The beginning of all keys. It has no character that could be one of a hash tag.
PREFIX = "txconnpoolverify"

#: Seconds after which the keys expire if they are not deleted.
EXPIRY = 600

#: The number of requests that are sent before their replies are read.
_BATCH = 50

#: The longest key that memcached allows.
_LONGEST = 250

#: The kinds of keys: each takes part in the map in another way. C{%s} stands for what is unique.
SHAPES = {
    "plain": "%s",
    "with parts": "%s:user:%s:page",
    "with {tag}": "%s{%s}x",
    "with [tag]": "%s[%s]x",
    "with (tag)": "%s(%s)x",
    "with <tag>": "%s<%s>x",
    "with $tag$": "%s$%s$x",
    "with empty {}": "%s{}%s",
    "with |#| stop": "%s%s|#|x",
    "long": "%s" + "x" * _LONGEST,
    "not ASCII": "%sé%s",
}

Address = tuple[str, int] | str


class Trouble(Exception):
    """
    The comparison is not possible. The text of the exception says why, in one line.
    """


class Refused(Exception):
    """
    A proxy has answered an error to one request. The text of the exception is the error.
    """


class Outcome(Enum):
    """
    What was found out about a key. The later ones count more.
    """

    SAME = "on the same server"
    UNKNOWN = "not known"
    OTHER = "on another server"


def parseAddress(text: str) -> Address:
    """
    Parse an address of the command line.

    @return: host and port, or the path of a UNIX socket.
    @raise Trouble: it is none.
    """
    plain = re.sub("^(tcp|unix):", "", text)
    if "/" in plain:
        return plain
    host, _, number = plain.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", number) or not 0 < int(number) < 65536:
        raise Trouble(f"{text}: expected HOST:PORT, or the path of a UNIX socket")
    return host.removeprefix("[").removesuffix("]"), int(number)


def makeKeys(prefix: str, count: int) -> list[tuple[str, bytes]]:
    """
    @param prefix: the beginning of all keys, with what is unique in this run.
    @return: the kind and the key, for each of them.
    @raise Trouble: the prefix cannot be the beginning of a key.
    """
    if not prefix or re.search(r"[\x00-\x20\x7f]", prefix) or len(prefix.encode()) > 100:
        raise Trouble("the prefix must have 1 to 80 characters, without spaces and control characters")
    shapes = list(SHAPES.items())
    keys = []
    for number in range(count):
        name, shape = shapes[number % len(shapes)]
        words = (prefix, str(number)) if shape.count("%s") > 1 else (f"{prefix}{number}",)
        keys.append((name, (shape % words).encode()[:_LONGEST]))
    return keys


class Peer:
    """
    A blocking connection to a proxy for memcached.

    @ivar address: the address, for messages.
    """

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        """
        @param name: C{OLD} or C{NEW}.
        @param timeout: seconds to wait for a connection or for a reply.
        @raise Trouble: there is no connection.
        """
        self.address = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self._name = f"{name} {self.address}"
        try:
            if isinstance(address, str):
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(timeout)
                self._socket.connect(address)
            else:
                self._socket = socket.create_connection(address, timeout)
        except OSError as error:
            raise Trouble(f"{self._name}: cannot connect: {error.strerror or error}") from None
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        """
        Close the connection.
        """
        self._file.close()
        self._socket.close()

    def set(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[str | None]:
        """
        Set keys.

        @return: for each key an error, or C{None}.
        """
        sent = [b"set %b 0 %d %d\r\n%b\r\n" % (key, EXPIRY, len(value), value) for key, value in pairs]
        return [None if line == b"STORED" else _text(line) for line in self._lines(sent)]

    def get(self, keys: Sequence[bytes]) -> list[bytes | Refused | None]:
        """
        Get keys, each with a request of its own.

        @return: for each key its value, C{None} if it is not found, or an error.
        """
        self._send([b"get %b\r\n" % key for key in keys])
        return [self._value(key) for key in keys]

    def delete(self, keys: Sequence[bytes]) -> None:
        """
        Delete keys, wherever they are.
        """
        for _ in self._lines([b"delete %b\r\n" % key for key in keys]):
            pass

    def _value(self, key: bytes) -> bytes | Refused | None:
        line = self._line()
        if line == b"END":
            return None
        match = re.fullmatch(rb"VALUE (\S+) [0-9]+ ([0-9]{1,9})(?: [0-9]+)?", line)
        if match is None:
            return Refused(_text(line))
        value = self._read(int(match[2]) + 2)[:-2]
        if match[1] != key or self._line() != b"END":
            raise Trouble(f"{self._name}: a reply to get does not match the request")
        return value

    def _lines(self, requests: Sequence[bytes]) -> Iterator[bytes]:
        self._send(requests)
        for _ in requests:
            yield self._line()

    def _send(self, requests: Sequence[bytes]) -> None:
        try:
            self._socket.sendall(b"".join(requests))
        except OSError as error:
            raise self._lost(error) from None

    def _line(self) -> bytes:
        try:
            line = self._file.readline(1 << 16)
        except OSError as error:
            raise self._lost(error) from None
        if not line.endswith(b"\n"):
            raise self._lost(None)
        return line.rstrip(b"\r\n")

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self._lost(error) from None
        if len(data) < size:
            raise self._lost(None)
        return data

    def _lost(self, error: OSError | None) -> Trouble:
        if isinstance(error, TimeoutError):
            return Trouble(f"{self._name}: no reply within {self._socket.gettimeout():g} seconds")
        why = f": {error.strerror or error}" if error else " instead of a reply"
        return Trouble(f"{self._name}: closed the connection{why}")


class RedisPeer(Peer):
    """
    A blocking connection to a proxy for Redis.
    """

    def __init__(self, name: str, address: Address, timeout: float, password: str | None = None) -> None:
        """
        Connect, see L{Peer.__init__}.

        @param password: the password for clients; C{None}: there is none.
        @raise Trouble: there is no connection, or the password is wrong.
        """
        super().__init__(name, address, timeout)
        if password is not None:
            line = self.command(b"AUTH", password.encode())
            if line != b"+OK":
                self.close()
                raise Trouble(f"{self._name}: {_text(line)}")

    def command(self, *words: bytes) -> bytes:
        """
        Send a request whose reply is one line.

        @return: the line.
        """
        (line,) = self._lines([_request(*words)])
        return line

    def set(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[str | None]:
        """
        Set keys.

        @return: for each key an error, or C{None}.
        """
        sent = [_request(b"SET", key, value, b"EX", b"%d" % EXPIRY) for key, value in pairs]
        return [None if line == b"+OK" else _text(line) for line in self._lines(sent)]

    def get(self, keys: Sequence[bytes]) -> list[bytes | Refused | None]:
        """
        Get keys, each with a request of its own.

        @return: for each key its value, C{None} if it is not found, or an error.
        """
        self._send([_request(b"GET", key) for key in keys])
        return [self._value(key) for key in keys]

    def delete(self, keys: Sequence[bytes]) -> None:
        """
        Delete keys, wherever they are.
        """
        for _ in self._lines([_request(b"DEL", key) for key in keys]):
            pass

    def _value(self, key: bytes) -> bytes | Refused | None:
        line = self._line()
        if line == b"$-1":
            return None
        match = re.fullmatch(rb"\$([0-9]{1,9})", line)
        return Refused(_text(line)) if match is None else self._read(int(match[1]) + 2)[:-2]


def _request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@dataclass
class Report:
    """
    The result of a comparison.

    @ivar old: the address of the old proxy.
    @ivar new: the address of the new proxy.
    @ivar prefix: the beginning of all keys.
    @ivar outcomes: kind, key, outcome, and for C{UNKNOWN} the reason.
    """

    old: str
    new: str
    prefix: str
    outcomes: list[tuple[str, bytes, Outcome, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """
        The exit status of the command.
        """
        found = {outcome for _, _, outcome, _ in self.outcomes}
        return 1 if Outcome.OTHER in found else 2 if Outcome.UNKNOWN in found else 0

    def text(self, most: int | None) -> str:
        """
        @param most: how many keys are listed; C{None}: all.
        @return: lines for the operator.
        """
        count = len(self.outcomes)
        other = [key for _, key, outcome, _ in self.outcomes if outcome is Outcome.OTHER]
        unknown = [(key, why) for _, key, outcome, why in self.outcomes if outcome is Outcome.UNKNOWN]
        lines = [
            f"OLD {self.old}, NEW {self.new}: {count} keys that begin with {self.prefix}, each set through one and "
            "read through the other, in both directions, and then deleted.",
        ]
        if other:
            lines += self._shapes()
            lines.append(f"{len(other)} of {count} keys ({100 * len(other) / count:.1f} %) are on another server:")
            lines += _some([_text(key) for key in other], most)
            lines += self._hints()
        if unknown:
            lines.append(f"{len(unknown)} of {count} keys could not be compared:")
            lines += _some([f"{_text(key)}: {why}" for key, why in unknown], most)
        if not other and not unknown:
            lines.append(f"All {count} keys are on the same server for both.")
        return "".join(f"{line}\n" for line in lines)

    def _counts(self) -> dict[str, tuple[int, int]]:
        """
        @return: for each kind of keys, how many are on another server, and how many there are.
        """
        counts = dict.fromkeys(SHAPES, (0, 0))
        for shape, _, outcome, _ in self.outcomes:
            others, total = counts[shape]
            counts[shape] = others + (outcome is Outcome.OTHER), total + 1
        return {shape: each for shape, each in counts.items() if each[1]}

    def _shapes(self) -> list[str]:
        return [
            f"  keys {shape:<15} {others:>6} of {total} on another server"
            for shape, (others, total) in self._counts().items()
        ]

    def _hints(self) -> list[str]:
        wrong = {shape for shape, (others, _) in self._counts().items() if others}
        if wrong == {"not ASCII"}:
            return [
                "Only keys with bytes above 127 differ: some hash functions of twemproxy and libmemcached depend on "
                "the processor for them. The old proxy probably does not run on x86."
            ]
        if wrong == {"with |#| stop"}:
            return ["Only keys with |#| differ: compare hash-stop."]
        if all("tag" in shape or "{" in shape for shape in wrong):
            return ["Only keys with hash tags differ: compare hash-tag."]
        return ["Compare distribution and hash, and the labels, weights and order of the servers."]


class Verification:
    """
    A comparison of two proxies.
    """

    def __init__(self, connectOld: Callable[[], Peer], connectNew: Callable[[], Peer], prefix: str = PREFIX) -> None:
        """
        @param connectOld: connects to the old proxy.
        @param connectNew: connects to the new proxy.
        @param prefix: the beginning of all keys.
        """
        self._connectOld, self._connectNew = connectOld, connectNew
        self._token = secrets.token_hex(6)
        self._prefix = prefix + self._token

    def run(self, count: int = KEYS) -> Report:
        """
        Compare, and delete the keys.

        @param count: the number of keys.
        @raise Trouble: it is not possible.
        """
        keys = makeKeys(self._prefix, count)
        old = self._connectOld()
        try:
            new = self._connectNew()
            try:
                report = Report(old.address, new.address, self._prefix)
                for at in range(0, count, _BATCH):
                    self._batch(old, new, keys[at : at + _BATCH], report)
                return report
            finally:
                new.close()
        finally:
            old.close()

    def _batch(self, old: Peer, new: Peer, batch: Sequence[tuple[str, bytes]], report: Report) -> None:
        keys = [key for _, key in batch]
        try:
            there = self._oneWay(old, new, keys, b"1")
            back = self._oneWay(new, old, keys, b"2")
        except BaseException:
            # The keys expire, but what can be deleted is deleted.
            with suppress(Trouble):
                old.delete(keys)
            with suppress(Trouble):
                new.delete(keys)
            raise
        old.delete(keys)
        new.delete(keys)
        for (shape, key), first, second in zip(batch, there, back, strict=True):
            # A key that is not found in one direction is on another server, whatever happens in the other direction.
            outcome, why = max(first, second, key=lambda each: list(Outcome).index(each[0]))
            report.outcomes.append((shape, key, outcome, why))

    def _oneWay(self, writer: Peer, reader: Peer, keys: Sequence[bytes], mark: bytes) -> list[tuple[Outcome, str]]:
        """
        Set keys through one proxy, and read them through both.

        @param mark: what makes the values of this direction unique.
        """
        values = [b"%b %b %b" % (self._token.encode(), mark, key) for key in keys]
        errors = writer.set(list(zip(keys, values, strict=True)))
        own, others = writer.get(keys), reader.get(keys)
        return [
            _judge(writer.address, value, error, mine, other)
            for value, error, mine, other in zip(values, errors, own, others, strict=True)
        ]


def _judge(
    writer: str, value: bytes, error: str | None, mine: bytes | Refused | None, other: bytes | Refused | None
) -> tuple[Outcome, str]:
    if error is not None:
        return Outcome.UNKNOWN, error
    for found in (mine, other):
        if isinstance(found, Refused):
            return Outcome.UNKNOWN, str(found)
    if mine != value:
        # Without this, a proxy that has several equal servers would look like one with another map.
        return Outcome.UNKNOWN, f"{writer} does not return what was set through it"
    return (Outcome.SAME if other == value else Outcome.OTHER), ""


def _some(texts: Sequence[str], most: int | None) -> list[str]:
    lines = [f"  {text}" for text in texts[:most]]
    return lines if len(lines) == len(texts) else [*lines, f"  and {len(texts) - len(lines)} more"]


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
