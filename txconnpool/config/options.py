# -*- test-case-name: tests.config.test_options -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The declaration of a setting.

A setting is declared once, as a field of a frozen dataclass whose default is a call of L{option}. The ini key, the long
option, the help, the checks and the default are made from that; see L{txconnpool.config.settings}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from txconnpool.config.kinds import Kind
from txconnpool.net.tls import NoSuchSocket

T = TypeVar("T")


class Automatic(int):
    """
    A number that nobody has given: settings compute it from other ones, again whenever those are replaced.
    """


class WrongItem(ValueError):
    """
    One of several values of a setting is wrong. The text of the exception begins with the value.

    @ivar index: the position of the value.
    @ivar problem: the text without the value.
    """

    def __init__(self, index: int, value: object, problem: str) -> None:
        super().__init__(f"{value!r}: {problem}")
        self.index = index
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Option:
    """
    The declaration of a setting.

    @ivar name: the ini key, and the long option without its two hyphens.
    @ivar attribute: the name of the dataclass's field.
    @ivar default: the value if none is given.
    @ivar kind: the kind of its value, or of each of its values.
    @ivar doc: a phrase for the help.
    @ivar group: the heading under which the help shows it.
    @ivar short: the letter of the short option, or an empty string.
    @ivar many: whether it may be given several times. Its value is a tuple then.
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
        Make a value from texts, and check it.

        @param texts: one text for each line of the ini file, or for each time the option was used.

        @raise ValueError: there is no such value. The message describes the allowed values.
        """
        if self.default is None and not any(texts):
            return None
        if not self.many and len(texts) > 1:
            raise ValueError("expected one line")
        values = tuple(map(self.kind.parse, texts))
        value = values if self.many else values[0]
        self.checkValue(value)
        return value

    def located(self, value: Any, directory: str) -> Any:
        """
        Make the relative paths in a value absolute.

        @param value: a value that L{checkValue} accepts.
        @param directory: the absolute path of the directory that they are relative to.
        """
        if value is None:
            return None
        return (
            tuple(self.kind.located(each, directory) for each in value)
            if self.many
            else (self.kind.located(value, directory))
        )

    def checkValue(self, value: Any) -> None:
        """
        Check a value. Nothing is opened or read.

        @raise ValueError: the value is not allowed. The message describes the allowed values.
        """
        if self.many and value and isinstance(value, str | list):
            right = (value,) if isinstance(value, str) else tuple(value)
            raise ValueError(f"expected a tuple of one or more, such as {right!r}")
        if self.many and not (isinstance(value, tuple) and value):
            raise ValueError(f"expected one or more of {self.kind.expected}")
        self._forEach(value, self.kind.checkValue)
        if self.many and len(set(value)) < len(value):
            raise ValueError("expected each only once")

    def checkFiles(self, value: Any, sockets: bool = True) -> None:
        """
        Read the files that a value names, and check what is in them.

        @param value: a value that L{checkValue} accepts.
        @param sockets: whether the sockets of systemd that it names must exist.

        @raise ValueError: a file cannot be read, or its content is wrong. The message says why.
        """

        def check(one: Any) -> None:
            try:
                self.kind.checkFiles(one)
            except NoSuchSocket:
                if sockets:
                    raise

        self._forEach(value, check)

    def _forEach(self, value: Any, check: Callable[[Any], None]) -> None:
        """
        Call a check with the value, or with each of several values.

        @raise WrongItem: one of several is wrong.
        """
        if not self.many:
            if value is not None or self.default is not None:
                check(value)
            return
        for index, one in enumerate(value):
            try:
                check(one)
            except ValueError as error:
                raise (WrongItem(index, one, str(error)) if len(value) > 1 else ValueError(str(error))) from None

    def show(self, value: Any) -> str:
        """
        Write a value as in an ini file: each of several on a line of its own, an empty text for C{None}.
        """
        if value is None:
            return ""
        return "\n".join(map(self.kind.show, value)) if self.many else self.kind.show(value)


def option(
    default: T, kind: Kind[Any], doc: str, group: str, short: str = "", many: bool = False, fixed: bool = False
) -> T:
    """
    Declare a setting. For the parameters, see L{Option}.

    @return: a field of a dataclass, from which L{optionsOf} makes an L{Option}. For type checkers it is the default.
    """
    metadata = {"kind": kind, "doc": doc, "group": group, "short": short, "many": many, "fixed": fixed}
    return field(default=default, metadata=metadata)


def optionsOf(settings: type) -> Iterator[Option]:
    """
    @return: the settings that a dataclass declares with L{option}.
    """
    for each in fields(settings):
        if each.metadata:
            name = re.sub("[A-Z]", lambda match: "-" + match[0].lower(), each.name)
            yield Option(name=name, attribute=each.name, default=each.default, **each.metadata)
