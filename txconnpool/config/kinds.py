# -*- test-case-name: tests.config.test_kinds -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The kinds of values that settings have.

Each kind has two checks. C{checkValue} looks at the value alone, so that settings are constructed without reading any
file. C{checkFiles} reads the files that the value names.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, TypeVar, cast

from txconnpool.net.syntax import withAbsolutePaths
from txconnpool.net.tls import CannotUse

T = TypeVar("T")


class Kind(ABC, Generic[T]):
    """
    A kind of value: how it is written in text, and which values are allowed.

    @cvar metavar: the word for a value in the help.
    @ivar expected: the allowed values, as the end of a sentence that begins with "expected".
    """

    metavar: ClassVar[str]
    expected: str

    def parse(self, text: str) -> T:
        """
        Make a value from its text. The default implementation returns the text.

        @raise ValueError: the text is no such value. The message describes the allowed values.
        """
        return cast(T, text)

    @abstractmethod
    def checkValue(self, value: T) -> None:
        """
        Check a value, which was parsed from text or given by a program. Nothing is opened or read.

        @raise ValueError: the value is not allowed. The message describes the allowed values.
        """

    def located(self, value: T, directory: str) -> T:
        """
        Make the relative paths in a value absolute. The default implementation returns the value.

        @param value: a value that L{checkValue} accepts.
        @param directory: the absolute path of the directory that they are relative to.
        """
        return value

    def checkFiles(self, value: T) -> None:
        """
        Read the files that a value names, and check what is in them. The default implementation reads none.

        @param value: a value that L{checkValue} accepts.

        @raise ValueError: a file cannot be read, or its content is wrong. The message says why.
        """
        return None

    def wrong(self) -> ValueError:
        """
        @return: an exception that describes the allowed values.
        """
        return ValueError(f"expected {self.expected}")

    def show(self, value: T) -> str:
        """
        Write a value as text from which L{parse} makes it again.
        """
        return str(value)

    def quote(self, value: object) -> str:
        """
        Write a wrong value in an error message.

        @param value: a text, several texts, or what a program has set.
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

    def checkValue(self, value: int) -> None:
        """
        Check the range.
        """
        if not (isinstance(value, int) and self.low <= value <= self.high):
            raise self.wrong()


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
    _units: ClassVar[dict[str, int]] = {"": 1, "s": 1, "m": 60, "h": 3600}

    def __init__(self, low: float, high: float, zero: str = "") -> None:
        """
        @param zero: the meaning of 0, if that is allowed outside of the range.
        """
        self.low, self.high, self.zero = low, high, zero
        self.expected = f"seconds from {low:g} to {high:.0f}, such as 2, 0.5, 500ms, 5m or 1h"
        if zero:
            self.expected += f", or 0 for {zero}"

    def parse(self, text: str) -> float:
        """
        Read a decimal number and perhaps a unit.
        """
        match = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(ms|s|m|h|)", text.lower())
        if match is None:
            raise self.wrong()
        number = float(match[1])
        return number / 1000 if match[2] == "ms" else number * self._units[match[2]]

    def checkValue(self, value: float) -> None:
        """
        Check the range.
        """
        if not isinstance(value, (int, float)):
            raise self.wrong()
        if not self.low <= value <= self.high and not (self.zero and value == 0):
            raise self.wrong()

    def show(self, value: float) -> str:
        """
        Write the seconds, without the C{.0} of whole ones, or whole milliseconds if they are less than a second.
        """
        thousandths = round(value * 1000)
        if 0 < thousandths < 1000 and thousandths / 1000 == value:
            return f"{thousandths}ms"
        return repr(value).removesuffix(".0")


class Choice(Kind[str]):
    """
    One of a few words.
    """

    metavar = "WORD"

    def __init__(self, *words: str) -> None:
        self.words = words
        self.expected = " or ".join(words)

    def checkValue(self, value: str) -> None:
        """
        Look the word up.
        """
        if value not in self.words:
            raise self.wrong()


class Text(Kind[str]):
    """
    A short text without spaces.
    """

    metavar = "TEXT"

    def __init__(self, pattern: str, expected: str) -> None:
        """
        @param pattern: a regular expression for the whole text.
        """
        self._pattern = pattern
        self.expected = expected

    def checkValue(self, value: str) -> None:
        """
        Compare with the pattern.
        """
        if not (isinstance(value, str) and re.fullmatch(self._pattern, value)):
            raise self.wrong()


class WordsKind(Kind[tuple[str, ...]]):
    """
    Any number of words with spaces or commas between them.
    """

    def parse(self, text: str) -> tuple[str, ...]:
        """
        Read the words.
        """
        return tuple(text.replace(",", " ").split())

    def show(self, value: tuple[str, ...]) -> str:
        """
        Join the words with spaces.
        """
        return " ".join(value)


class Words(WordsKind):
    """
    Any number of words of a list, with spaces or commas between them.
    """

    metavar = "WORDS"

    def __init__(self, what: str, known: Iterable[str], never: Iterable[str] = (), why: str = "") -> None:
        """
        @param what: the noun for one of the words.
        @param known: all words that are allowed.
        @param never: other words that exist and are not allowed.
        @param why: why they are not allowed, as the end of a sentence that begins with the word.
        """
        self._what, self._known, self._never, self._why = what, sorted(known), frozenset(never), why
        self.expected = f"names of {what}s, such as {self._known[0]} {self._known[-1]}"

    def checkValue(self, value: tuple[str, ...]) -> None:
        """
        @raise ValueError: a word is not allowed. The message has the word, and the allowed one that is most like it.
        """
        if not isinstance(value, tuple):
            raise self.wrong()
        for word in value:
            if word in self._never:
                raise ValueError(f"{word} {self._why}")
            if word not in self._known:
                near = nearest(str(word), self._known)
                right = f"did you mean {near}?" if near else f"expected some of {' '.join(self._known)}"
                raise ValueError(f"no such {self._what}: {word}; {right}")


class HostNames(WordsKind):
    """
    Any number of names of hosts, with spaces or commas between them.
    """

    metavar = "NAMES"
    expected = "names of hosts without a port, such as proxy1.example.com"

    def checkValue(self, value: tuple[str, ...]) -> None:
        """
        Check the characters of each name.
        """
        if not isinstance(value, tuple):
            raise self.wrong()
        for name in value:
            if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name)):
                raise self.wrong()


class Announced(WordsKind):
    """
    The addresses that clients see: C{HOST:PORT} any number of times, with spaces or commas between them, or one of
    the words C{self} and C{no}.
    """

    metavar = "ADDRESSES"
    expected = "HOST:PORT of each proxy, self for the address that a client has connected to, or no"

    def checkValue(self, value: tuple[str, ...]) -> None:
        """
        Check the form of each address.
        """
        if not (isinstance(value, tuple) and value and all(isinstance(each, str) for each in value)):
            raise self.wrong()
        if value not in (("self",), ("no",)):
            places = [placeOf(each) for each in value]
            if None in places or len(set(places)) < len(places):
                raise self.wrong()


def placeOf(text: str) -> tuple[str, int] | None:
    """
    @param text: C{HOST:PORT}, or C{[ADDRESS]:PORT} for IPv6.

    @return: the host without brackets, and the port; C{None} for anything else.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)):([1-9][0-9]{0,4})", text)
    if match is None or int(match[3]) > 65535:
        return None
    return match[1] or match[2], int(match[3])


class Endpoint(Kind[str]):
    """
    An endpoint string of Twisted.
    """

    metavar = "ENDPOINT"

    def __init__(
        self,
        checkSyntax: Callable[[str], object],
        checkFiles: Callable[[str], object],
        expected: str,
        suggest: Callable[[str], str | None] = lambda text: None,
        listening: bool = False,
    ) -> None:
        """
        @param checkSyntax: raises an exception for a string that is wrong.
        @param checkFiles: raises L{CannotUse} for a string that names files of no use.
        @param expected: examples of right ones.
        @param suggest: returns what to write instead of a wrong string, as the end of a sentence, or C{None}.
        @param listening: whether it is the string of a server endpoint.
        """
        self._checkSyntax = checkSyntax
        self._checkFiles = checkFiles
        self._suggest = suggest
        self._listening = listening
        self.expected = expected

    def checkValue(self, value: str) -> None:
        """
        @raise ValueError: the string is no endpoint. The message says why, and has examples of right ones.
        """
        if not isinstance(value, str):
            raise self.wrong()
        try:
            self._checkSyntax(value)
        except ValueError as error:
            problem = _oneLine(error)
        except Exception:  # the parsers of Twisted's plugins may raise any, about parameters of their own
            problem = "endpoints of this type do not take these arguments"
        else:
            return
        raise ValueError(f"{problem}; {self._suggest(value) or f'expected {self.expected}'}")

    def located(self, value: str, directory: str) -> str:
        """
        Make the paths of UNIX sockets, keys and certificates absolute.
        """
        return withAbsolutePaths(value, directory, self._listening)

    def checkFiles(self, value: str) -> None:
        """
        Read the keys and certificates that the string names, and look for its socket of systemd.
        """
        try:
            self._checkFiles(value)
        except CannotUse:
            raise
        except Exception as error:  # Twisted's parsers raise six kinds already, and plugins may raise any
            raise ValueError(f"{_oneLine(error)}; expected {self.expected}") from None


def _oneLine(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str | None:
    """
    @return: the known name that is most like a misspelt one, or C{None} if none is like it.
        A name with another number of words means something else: C{client-idle-timeout} is not C{idle-timeout}.
    """
    best, found = 0.0, None
    for each in known:
        likeness = _likeness(re.split("[-_]", name), re.split("[-_]", each))
        if likeness > best:
            best, found = likeness, each
    return found


def _likeness(one: list[str], other: list[str]) -> float:
    """
    @return: how much the words of two names are like each other, up to 1; 0 if they are not.
    """
    least = 0.75
    if len(one) != len(other):
        one, other, least = ["".join(one)], ["".join(other)], 0.9
    ratios = [difflib.SequenceMatcher(None, *pair).ratio() for pair in zip(one, other, strict=True)]
    return 0.0 if min(ratios) < least else sum(ratios) / len(ratios)
