# -*- test-case-name: tests.redis.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred

from txconnpool.redis.arguments import Argument, Key
from txconnpool.redis.base import BaseCommands, V, keysOf, okay


class ListCommands(BaseCommands[V]):
    """
    Commands for lists.
    """

    def lpush(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Add elements at the head of a list.

        @return: fires with the length of the list.
        """
        return self._do("lpush", None, name, *values)

    def rpush(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Add elements at the tail of a list.

        @return: fires with the length of the list.
        """
        return self._do("rpush", None, name, *values)

    def lpushx(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Add elements at the head of a list, if it exists.

        @return: fires with the length of the list.
        """
        return self._do("lpushx", None, name, *values)

    def rpushx(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Add elements at the tail of a list, if it exists.

        @return: fires with the length of the list.
        """
        return self._do("rpushx", None, name, *values)

    def lpop(self, name: Key, count: int | None = None) -> Deferred[Any]:
        """
        Remove elements at the head of a list.

        @return: fires with the element, or with a list if there is a C{count}; C{None} if the list is empty.
        """
        return self._do("lpop", None, name, *([] if count is None else [count]))

    def rpop(self, name: Key, count: int | None = None) -> Deferred[Any]:
        """
        Remove elements at the tail of a list.

        @return: fires with the element, or with a list if there is a C{count}; C{None} if the list is empty.
        """
        return self._do("rpop", None, name, *([] if count is None else [count]))

    def lrange(self, name: Key, start: int, end: int) -> Deferred[list[V]]:
        """
        @return: fires with the elements from C{start} to C{end}; negative positions count from the tail.
        """
        return self._do("lrange", None, name, start, end)

    def llen(self, name: Key) -> Deferred[int]:
        """
        @return: fires with the length of a list.
        """
        return self._do("llen", None, name)

    def lindex(self, name: Key, index: int) -> Deferred[V | None]:
        """
        @return: fires with an element; C{None} if there is none.
        """
        return self._do("lindex", None, name, index)

    def lset(self, name: Key, index: int, value: Argument) -> Deferred[bool]:
        """
        Replace an element.

        @return: fires with C{True}.
        """
        return self._do("lset", okay, name, index, value)

    def lrem(self, name: Key, count: int, value: Argument) -> Deferred[int]:
        """
        Remove C{count} elements that are C{value}; 0: all; negative: from the tail.

        @return: fires with the number of those that were removed.
        """
        return self._do("lrem", None, name, count, value)

    def ltrim(self, name: Key, start: int, end: int) -> Deferred[bool]:
        """
        Remove all elements but those from C{start} to C{end}.

        @return: fires with C{True}.
        """
        return self._do("ltrim", okay, name, start, end)

    def linsert(self, name: Key, where: str, refvalue: Argument, value: Argument) -> Deferred[int]:
        """
        Insert an element C{"BEFORE"} or C{"AFTER"} another one.

        @return: fires with the length of the list; -1 if there is no such element.
        """
        return self._do("linsert", None, name, where, refvalue, value)

    def lmove(self, first_list: Key, second_list: Key, src: str = "LEFT", dest: str = "RIGHT") -> Deferred[V | None]:
        """
        Move an element from one end of a list to one of another list.

        @return: fires with the element; C{None} if the list is empty.
        """
        return self._do("lmove", None, first_list, second_list, src, dest)

    def rpoplpush(self, src: Key, dst: Key) -> Deferred[V | None]:
        """
        Move an element from the tail of a list to the head of another one.

        @return: fires with the element; C{None} if the list is empty.
        """
        return self._do("rpoplpush", None, src, dst)

    def lpos(
        self,
        name: Key,
        value: Argument,
        rank: int | None = None,
        count: int | None = None,
        maxlen: int | None = None,
    ) -> Deferred[Any]:
        """
        Find an element.

        @param rank: 1: the first one; 2: the second; negative: from the tail.
        @param count: how many to find; 0: all.
        @param maxlen: how many elements to look at; 0: all.

        @return: fires with its position; C{None} if there is none. With C{count}, with a list of positions.
        """
        words: list[Any] = [*([] if rank is None else ["RANK", rank]), *([] if count is None else ["COUNT", count])]
        return self._do("lpos", None, name, value, *words, *([] if maxlen is None else ["MAXLEN", maxlen]))

    def lmpop(self, num_keys: int, *args: Key, direction: str, count: int = 1) -> Deferred[tuple[V, list[V]] | None]:
        """
        Remove elements of the first of some lists that is not empty.

        @param num_keys: the number of keys.
        @param args: the keys.
        @param direction: C{"LEFT"}: from the head; C{"RIGHT"}: from the tail.

        @return: fires with the key and the elements; C{None} if all are empty.
        """
        return self._do("lmpop", None, num_keys, *args, direction, "COUNT", count).addCallback(self._bareFirst)

    def blmpop(
        self, timeout: float, numkeys: int, *args: Key, direction: str, count: int = 1
    ) -> Deferred[tuple[V, list[V]] | None]:
        """
        As L{lmpop}, but wait if all are empty, see L{blpop}.
        """
        words = [timeout, numkeys, *args, direction, "COUNT", count]
        return self._do("blmpop", None, *words).addCallback(self._bareFirst)

    def brpoplpush(self, src: Key, dst: Key, timeout: float = 0) -> Deferred[V | None]:
        """
        As L{rpoplpush}, but wait while the list is empty, see L{blpop}.
        """
        return self._do("brpoplpush", None, src, dst, timeout)

    def blpop(self, keys: Key | Iterable[Key], timeout: float = 0) -> Deferred[tuple[V, V] | None]:
        """
        Remove an element at the head of the first of some lists that is not empty. While all are, wait for one, on a
        connection that is leased meanwhile. If the call is cancelled, that connection is closed.

        @param timeout: how long to wait, in seconds; 0: no limit.

        @return: fires with the key and the element; C{None} after the timeout.
        """
        return self._do("blpop", None, *keysOf(keys), timeout).addCallback(self._bareFirst)

    def brpop(self, keys: Key | Iterable[Key], timeout: float = 0) -> Deferred[tuple[V, V] | None]:
        """
        Remove an element at the tail of the first of some lists that is not empty. While all are, wait for one, on a
        connection that is leased meanwhile. If the call is cancelled, that connection is closed.

        @param timeout: how long to wait, in seconds; 0: no limit.

        @return: fires with the key and the element; C{None} after the timeout.
        """
        return self._do("brpop", None, *keysOf(keys), timeout).addCallback(self._bareFirst)

    def blmove(
        self, first_list: Key, second_list: Key, timeout: float, src: str = "LEFT", dest: str = "RIGHT"
    ) -> Deferred[V | None]:
        """
        As L{lmove}, but wait while the list is empty, see L{blpop}.
        """
        return self._do("blmove", None, first_list, second_list, src, dest, timeout)
