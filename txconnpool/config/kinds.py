# -*- test-case-name: tests.config.test_kinds -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What a setting may be: kinds of values, and the description of a setting from which all its faces follow.

A setting is declared once, as a field of a frozen dataclass whose default is a call of L{option}. The ini key, the long
option, the help, the checks and the default are made from that; see L{txconnpool.config.settings}.
"""

from __future__ import annotations

import difflib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar, cast

from twisted.internet.interfaces import IReactorPluggableNameResolver
from zope.interface import directlyProvides

from txconnpool.net.endpoints import CannotUse

T = TypeVar("T")


class Kind(ABC, Generic[T]):
    """
    How a value is written, and in which range it is.

    @cvar metavar: the word that stands for a value in the help.
    @ivar expected: what would be right, to end a sentence that begins with "expected".
    """

    metavar: ClassVar[str]
    expected: str

    def parse(self, text: str) -> T:
        """
        Read a value. A text stands for itself unless a kind says otherwise.

        @raise ValueError: the text is no such value; its message says what would be right.
        """
        return cast(T, text)

    @abstractmethod
    def fits(self, value: T) -> bool:
        """
        @return: whether a value, read or given by a program, is right.
        """

    def check(self, value: T) -> None:
        """
        @raise ValueError: the value is not right; its message says what would be.
        """
        if not self.fits(value):
            raise self.wrong()

    def wrong(self) -> ValueError:
        """
        @return: the exception for a value that is not right.
        """
        return ValueError(f"expected {self.expected}")

    def show(self, value: T) -> str:
        """
        Write a value so that L{parse} reads it back.
        """
        return str(value)

    def told(self, value: object) -> str:
        """
        Write a wrong value in a message: what was given, a text or several, or what a program set.
        """
        return repr(value)


class Whole(Kind[int]):
    """
    A whole number in a range.
    """

    metavar = "N"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.expected = f"a whole number from {low} to {high}"

    def parse(self, text: str) -> int:
        """
        Read digits.
        """
        if not re.fullmatch(r"[0-9]{1,20}", text):
            raise self.wrong()
        return int(text)

    def fits(self, value: int) -> bool:
        """
        Hold the range.
        """
        return isinstance(value, int) and self.low <= value <= self.high


class Size(Whole):
    """
    A number of bytes in a range; C{k}, C{m} and C{g} stand for powers of 1024.
    """

    metavar = "SIZE"
    _units: ClassVar[dict[str, int]] = {"g": 1 << 30, "m": 1 << 20, "k": 1 << 10}

    def __init__(self, low: int, high: int) -> None:
        super().__init__(low, high)
        self.expected = f"a size from {self.show(low)} to {self.show(high)}, such as 65536, 64k or 1m"

    def parse(self, text: str) -> int:
        """
        Read digits and perhaps a unit.
        """
        match = re.fullmatch(r"([0-9]{1,20})([kmg]?)", text.lower())
        if match is None:
            raise self.wrong()
        return int(match[1]) * self._units.get(match[2], 1)

    def show(self, value: int) -> str:
        """
        Write the number with the largest unit that divides it.
        """
        for unit, size in self._units.items():
            if value and value % size == 0:
                return f"{value // size}{unit}"
        return str(value)


class Seconds(Kind[float]):
    """
    A time in seconds, in a range; C{ms}, C{s}, C{m} and C{h} may follow the number.
    """

    metavar = "SECONDS"
    _units: ClassVar[dict[str, float]] = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}

    def __init__(self, low: float, high: float, zero: str = "") -> None:
        """
        @param zero: what 0 means, where it is allowed beside the range.
        """
        self.low, self.high, self.zero = low, high, zero
        self.expected = f"seconds from {self.show(low)} to {self.show(high)}, such as 2, 0.5, 500ms, 5m or 1h"
        if zero:
            self.expected += f", or 0 for {zero}"

    def parse(self, text: str) -> float:
        """
        Read a decimal number and perhaps a unit.
        """
        match = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(ms|s|m|h|)", text.lower())
        if match is None:
            raise self.wrong()
        return float(match[1]) * self._units[match[2]]

    def fits(self, value: float) -> bool:
        """
        Hold the range.
        """
        return isinstance(value, (int, float)) and (self.low <= value <= self.high or bool(self.zero and value == 0))

    def show(self, value: float) -> str:
        """
        Write the seconds, without the C{.0} of whole ones.
        """
        return repr(value).removesuffix(".0")


class Choice(Kind[str]):
    """
    One of a few words.
    """

    metavar = "WORD"

    def __init__(self, *words: str) -> None:
        self.words = words
        self.expected = " or ".join(words)

    def fits(self, value: str) -> bool:
        """
        Hold the list of words.
        """
        return value in self.words


class SecretFile(Kind[str]):
    """
    A file whose first line is a secret.
    """

    metavar = "FILE"
    expected = "a file that can be read, with the secret in its first line"

    def parse(self, text: str) -> str:
        """
        Make the path absolute: twistd may change its directory before it is read again.
        """
        return os.path.abspath(text)

    @staticmethod
    def read(value: str) -> bytes:
        """
        @return: the secret, without spaces around it.

        @raise OSError: the file cannot be read.
        """
        with open(value, "rb") as file:
            return file.readline(_SECRET_MAX).strip()

    def fits(self, value: str) -> bool:
        """
        Find a secret.
        """
        try:
            return bool(self.read(value))
        except OSError:
            return False


#: Bytes of a secret, at most.
_SECRET_MAX = 1024


class Words(Kind[tuple[str, ...]]):
    """
    Some words of a list, with spaces or commas between them; also none.
    """

    metavar = "WORDS"

    def __init__(self, what: str, known: Iterable[str], never: Iterable[str] = (), why: str = "") -> None:
        """
        @param what: what one of them is called.
        @param known: all there are.
        @param never: others that exist and cannot be taken.
        @param why: why not, to end a sentence.
        """
        self._what, self._known, self._never, self._why = what, sorted(known), frozenset(never), why
        self.expected = f"names of {what}s, such as {self._known[0]} {self._known[-1]}"

    def parse(self, text: str) -> tuple[str, ...]:
        """
        Read the words.
        """
        return tuple(text.replace(",", " ").split())

    def fits(self, value: tuple[str, ...]) -> bool:
        """
        Hold the list.
        """
        return isinstance(value, tuple) and set(value) <= set(self._known)

    def check(self, value: tuple[str, ...]) -> None:
        """
        @raise ValueError: a word is not in the list; its message says which, and what may have been meant.
        """
        for word in value if isinstance(value, tuple) else ():
            if word in self._never:
                raise ValueError(f"{word} {self._why}")
            if word not in self._known:
                near = nearest(str(word), self._known)
                right = f"did you mean {near}?" if near else f"expected some of {' '.join(self._known)}"
                raise ValueError(f"no such {self._what}: {word}; {right}")
        super().check(value)

    def show(self, value: tuple[str, ...]) -> str:
        """
        Write the words with spaces between them.
        """
        return " ".join(value)


class _Nowhere:
    """
    Stands where a reactor is asked for while an endpoint string is only checked: nothing can be done with it.
    """

    nameResolver = None

    def __init__(self) -> None:
        # tls: endpoints warn about a reactor without a resolver as soon as they are made.
        directlyProvides(self, IReactorPluggableNameResolver)


class Endpoint(Kind[str]):
    """
    An endpoint string of Twisted.

    It is checked by making the endpoint, which opens nothing but may read files that the string names (keys,
    certificates), and may load Twisted's plugins.
    """

    metavar = "ENDPOINT"

    def __init__(self, fromString: Callable[[Any, str], object], expected: str) -> None:
        """
        @param fromString: C{clientFromString} or C{serverFromString}.
        @param expected: examples.
        """
        self._fromString = fromString
        self.expected = expected

    def fits(self, value: str) -> bool:
        """
        Make the endpoint.
        """
        try:
            self._make(value)
        except ValueError:
            return False
        return True

    def check(self, value: str) -> None:
        """
        @raise ValueError: the string is no endpoint; its message says why, and what would be right.
        """
        try:
            self._make(value)
        except CannotUse:
            raise
        except ValueError as error:
            right = f"expected {self.expected}"
            # Where the type is right, its first argument may be missing, and the type would be taken for it.
            if "Unknown endpoint type" in str(error) and self.fits(f"tcp:{value}"):
                right = f"did you mean tcp:{value}?"
            raise ValueError(f"{error}; {right}") from None

    def _make(self, value: str) -> None:
        """
        @raise ValueError: the string is no endpoint; its message says why.
        """
        try:
            self._fromString(_Nowhere(), value)
        except CannotUse:
            raise
        except Exception as error:  # Twisted's own parsers raise six kinds already, and plugins may raise any
            # "TCP4ClientEndpoint.__init__() missing 1 required ..." is one of them.
            text = re.sub(r"^\S+\(\) ", "", " ".join(str(error).split()))
            raise ValueError(text.rstrip(".") or type(error).__name__) from None
        # Twisted takes any number for a port, and fails with a traceback when it comes to use it.
        ports = re.findall(r":(?:port=)?([0-9]+)(?=:|$)", value) if re.match("tcp6?:|ssl:|tls:", value, re.I) else []
        for port in ports:
            if int(port) > 65535:
                raise ValueError(f"port {port} is more than 65535")


@dataclass(frozen=True, kw_only=True)
class Option:
    """
    A setting: everything but its value.

    @ivar name: the ini key, and the long option without its two hyphens.
    @ivar attribute: the name of the dataclass's field.
    @ivar doc: a phrase for the help.
    @ivar group: the heading under which the help shows it.
    @ivar short: the letter of the short option, or nothing.
    @ivar many: whether it may be given several times: its value is a tuple then.
    @ivar fixed: whether it cannot change while the proxy runs.
    """

    name: str
    attribute: str
    default: Any
    kind: Kind[Any]
    doc: str
    group: str
    short: str
    many: bool
    fixed: bool

    def parse(self, texts: Sequence[str]) -> Any:
        """
        Read and check a value.

        @param texts: what was given, one text for each line or for each time the option was used.

        @raise ValueError: with what would be right.
        """
        if self.default is None and not any(texts):
            return None
        if not self.many and len(texts) > 1:
            raise ValueError("expected one line")
        values = tuple(map(self.kind.parse, texts))
        value = values if self.many else values[0]
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """
        Check a value.

        @raise ValueError: with what would be right.
        """
        if not self.many:
            if value is not None or self.default is not None:
                self.kind.check(value)
            return
        if not isinstance(value, tuple) or not value:
            raise ValueError(f"expected one or more of {self.kind.expected}")
        for one in value:
            try:
                self.kind.check(one)
            except ValueError as error:
                raise ValueError(f"{one!r}: {error}" if len(value) > 1 else str(error)) from None
        if len(set(value)) < len(value):
            raise ValueError("expected each only once")

    def show(self, value: Any) -> str:
        """
        Write a value as the ini has it: several on a line each, nothing for C{None}.
        """
        if value is None:
            return ""
        return "\n".join(map(self.kind.show, value)) if self.many else self.kind.show(value)


def option(
    default: T, kind: Kind[Any], doc: str, group: str, short: str = "", many: bool = False, fixed: bool = False
) -> T:
    """
    Declare a setting: the default of a dataclass's field, of which L{optionsOf} makes an L{Option}.

    @return: not really the default, but what type checkers and C{dataclass} take for it.
    """
    metadata = {"kind": kind, "doc": doc, "group": group, "short": short, "many": many, "fixed": fixed}
    return field(default=default, metadata=metadata)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """
    Find what a misspelt name may have meant.
    """
    return next(iter(difflib.get_close_matches(name, known, 1)), None)


def optionsOf(settings: type) -> Iterator[Option]:
    """
    Find the settings that a dataclass declares.
    """
    for each in fields(settings):
        if each.metadata:
            name = re.sub("[A-Z]", lambda match: "-" + match[0].lower(), each.name)
            yield Option(name=name, attribute=each.name, default=each.default, **each.metadata)
