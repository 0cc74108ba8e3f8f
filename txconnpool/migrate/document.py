# -*- test-case-name: tests.migrate.test_document -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Read the configurations of other proxies: YAML, and mcrouter's JSON. Every value keeps its line.

JSON is read as YAML, of which it is a part: so trailing commas are allowed in it, as they are in mcrouter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

#: A string of JSON, which is kept, or a comment.
_STRING_OR_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)

#: A string of JSON, which is kept, or a tabulator, which YAML does not allow.
_STRING_OR_TAB = re.compile(r'("(?:[^"\\\n]|\\.)*")|\t')

#: The characters of a line that are quoted.
_LONG = 160


class MigrationError(Exception):
    """
    A configuration cannot be converted. The text of the exception has one line for each problem.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        """
        @param problems: one line for each, which begins with the file and the line of the configuration.
        """
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Node:
    """
    A value in a document.

    @ivar line: the number of its first line, or of the line of its key if it has one.
    @ivar value: a text, also for numbers, C{true}, C{false} and C{null}; or a list; or a dictionary.
    @ivar quoted: whether it is a text in quotation marks.
    """

    line: int
    value: str | list[Node] | dict[str, Node]
    quoted: bool = False

    @property
    def text(self) -> str | None:
        """
        The value if it is no list and no dictionary.
        """
        return self.value if isinstance(self.value, str) else None

    @property
    def items(self) -> list[Node]:
        """
        The values of a list. Any other value is a list of itself, and an empty text is an empty list.
        """
        if isinstance(self.value, list):
            return self.value
        return [self] if self.value else []

    @property
    def fields(self) -> dict[str, Node]:
        """
        The values of a dictionary, by key; nothing for any other value.
        """
        return self.value if isinstance(self.value, dict) else {}

    def __str__(self) -> str:
        """
        Write the value for a message, in one line.
        """
        if isinstance(self.value, str):
            return f'"{self.value}"' if self.quoted else self.value
        if isinstance(self.value, list):
            return f"[{', '.join(map(str, self.value))}]"
        return f"{{{', '.join(f'{key}: {value}' for key, value in self.value.items())}}}"


class Document:
    """
    A configuration.

    @ivar name: the path of the file, for messages.
    @ivar isJson: whether it is JSON, as mcrouter's are, instead of YAML.
    @ivar root: the whole value.
    @ivar problems: what is wrong, one line for each.
    """

    def __init__(self, name: str, text: str) -> None:
        """
        @raise MigrationError: the text has wrong syntax, or the package PyYAML is not installed.
        """
        self.name = name
        self.problems: list[str] = []
        self._lines = text.splitlines()
        plain = _STRING_OR_COMMENT.sub(_blank, text)
        self.isJson = plain.lstrip("\ufeff \t\r\n").startswith("{")
        self.root = self._read(_STRING_OR_TAB.sub(_blank, plain) if self.isJson else text)

    def problem(self, line: int, text: str) -> None:
        """
        Add a problem.
        """
        self.problems.append(f"{self.name}:{line}: {text}")

    def check(self) -> None:
        """
        @raise MigrationError: there are problems.
        """
        if self.problems:
            raise MigrationError(self.problems)

    def original(self, line: int) -> str:
        """
        @return: a line as it is in the file, without the spaces around it. JSON may be one long line: of more than 160
            characters only the first ones are returned.
        """
        text = self._lines[line - 1].strip()
        return text if len(text) <= _LONG else f"{text[:_LONG]} ..."

    def _read(self, text: str) -> Node:
        try:
            import yaml
        except ImportError:
            raise MigrationError(["reading configurations needs the package PyYAML: pip install PyYAML"]) from None
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is None:
                raise MigrationError([f"{self.name}: is empty"])
            return self._node(root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            what = " ".join(filter(None, (error.context, error.problem)))
            raise MigrationError([f"{self.name}:{line}: {what}"]) from None
        except yaml.reader.ReaderError as error:
            raise MigrationError([f"{self.name}: is not a text: {error.reason}"]) from None
        except RecursionError:
            raise MigrationError([f"{self.name}: too many levels"]) from None

    def _node(self, node: yaml.Node, line: int | None = None) -> Node:
        import yaml

        line = node.start_mark.line + 1 if line is None else line
        if isinstance(node, yaml.ScalarNode):
            return Node(line, str(node.value), node.style is not None)
        if isinstance(node, yaml.SequenceNode):
            return Node(line, [self._node(each) for each in node.value])
        fields: dict[str, Node] = {}
        for key, each in self._pairs(node):
            if key.value in fields:
                self.problem(key.line, f"{key.value} is given twice, first in line {fields[str(key.value)].line}")
            fields.setdefault(str(key.value), each)
        return Node(line, fields)

    def _pairs(self, node: yaml.Node) -> Iterator[tuple[Node, Node]]:
        for key, each in node.value:
            name = self._node(key)
            if name.text is None:
                self.problem(name.line, "a key is a list or a mapping; expected a word")
            else:
                yield name, self._node(each, name.line)


def _blank(match: re.Match[str]) -> str:
    """
    Replace what is not a string with spaces, so that all lines keep their numbers.
    """
    return match[1] or re.sub(r"[^\n]", " ", match[0])
