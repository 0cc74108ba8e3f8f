# -*- test-case-name: tests.migrate.test_sections -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The ini file that is written, with a comment for each line of the configuration that it comes from.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from txconnpool.migrate.document import Document

#: The longest line of a comment.
_WIDTH = 110

#: What the comment about something that has no equivalent begins with.
NOT_TAKEN = "NOT TAKEN OVER: "


@dataclass
class Section:
    """
    The section of one pool.

    @ivar name: the name of the pool.
    @ivar servers: how many servers it has.
    @ivar off: whether all its settings are commented out, because the pool cannot be taken over.
    """

    name: str
    servers: int = 0
    off: bool = False
    _head: list[str] = field(default_factory=list)
    _body: list[str] = field(default_factory=list)

    def title(self, text: str) -> None:
        """
        Add a comment above the header of the section.
        """
        self._head += comment(text)

    def remark(self, text: str) -> None:
        """
        Add a comment.
        """
        self._body += comment(text)

    def setting(self, key: str, value: object) -> None:
        """
        Add a setting.
        """
        self._body.append(f"{key} = {value}")

    def many(self, key: str, lines: Iterable[tuple[str, str]]) -> None:
        """
        Add a setting with several values.

        @param lines: for each value the original text and the new one.
        """
        self._body.append(f"{key} =")
        for original, value in lines:
            self._body += [f"    # {original}", f"    {value}"]

    def lines(self) -> list[str]:
        """
        @return: all lines of the section.
        """
        lines = [*self._head, f"[pool:{self.name}]", *self._body]
        return [line if line.lstrip().startswith("#") or not self.off else f";{line}" for line in lines]


class Migration:
    """
    A configuration that is being converted.

    @ivar document: what is converted.
    @ivar sections: the pools.
    @ivar notes: what has no equivalent, for the operator; one line for each.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.sections: list[Section] = []
        self.notes: list[str] = []
        self._head: list[str] = []

    def section(self, wanted: str) -> Section:
        """
        Add a pool.

        @param wanted: its name. In the ini file it may have letters, digits, C{_}, C{.} and C{-} only, and no other
            pool may have it.
        """
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", wanted) or "pool"
        taken = {section.name for section in self.sections}
        names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3)))
        section = Section(next(name for name in names if name not in taken))
        self.sections.append(section)
        return section

    def lost(self, line: int, where: Section | None, text: str) -> None:
        """
        Note that something has no equivalent: for the operator, and as a comment.

        @param line: the line of the configuration.
        @param where: the pool in which the comment is; C{None}: at the top of the file.
        @param text: what it means, and what to do instead.
        """
        self.notes.append(f"{self.document.name}:{line}: {text}")
        if where is None:
            self._head += comment(f"{NOT_TAKEN}line {line}: {text}")
        else:
            where.remark(f"{NOT_TAKEN}{text}")

    def ini(self, head: Sequence[str]) -> str:
        """
        @param head: comments at the top of the file.
        @return: the whole ini file.
        """
        top = [line for text in head for line in comment(text)]
        parts = [top, self._head, *(section.lines() for section in self.sections)]
        return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"

    def summary(self) -> str:
        """
        @return: one line for the operator.
        """
        on = [section for section in self.sections if not section.off]
        off = [section.name for section in self.sections if section.off]
        texts = [
            f"{_count(len(on), 'pool')} with {_count(sum(section.servers for section in on), 'server')} taken over"
        ]
        if off:
            texts.append(f"{_count(len(off), 'pool')} commented out ({', '.join(off)})")
        texts.append(
            f"{_count(len(self.notes), 'thing')} without an equivalent"
            if self.notes
            else "everything has an equivalent"
        )
        return f"{self.document.name}: {', '.join(texts)}"


def comment(text: str) -> list[str]:
    """
    @return: the lines of a comment.
    """
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="#     ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}" + ("" if number == 1 else "s")
