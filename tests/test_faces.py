# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the faces: the package and the modules from which programs import.
"""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from importlib import import_module
from textwrap import dedent
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

import txconnpool
from txconnpool import config, errors, memcache, pool, redis, service, testing
from txconnpool.memcache.pool import MemCacheOptions
from txconnpool.pool.base import CommonOptions

FACES: tuple[ModuleType, ...] = (txconnpool, config, errors, memcache, pool, redis, service, testing)


class FaceTests(SynchronousTestCase):
    """
    Tests for the public names.
    """

    def test_import(self) -> None:
        """
        The public names can be imported from the package, and are those of their modules.
        """
        from txconnpool import MemCachePool, Pool, PoolService, ProxyService

        self.assertEqual(
            [MemCachePool, Pool, PoolService, ProxyService],
            [memcache.MemCachePool, pool.Pool, service.PoolService, service.ProxyService],
        )
        for module, names in txconnpool._NAMES.items():
            for name in names:
                self.assertIs(getattr(txconnpool, name), getattr(import_module(f"txconnpool.{module}"), name))
        self.assertRaises(AttributeError, getattr, txconnpool, "Proxy")

    def test_complete(self) -> None:
        """
        The package has all errors, and everything else that it names.
        """
        self.assertEqual(set(errors.__all__) - set(txconnpool.__all__), set())
        named = {name for names in txconnpool._NAMES.values() for name in names} | set(txconnpool._MODULES)
        self.assertEqual(named, set(txconnpool.__all__))

    def test_dir(self) -> None:
        """
        C{dir} of each face shows its public names only.
        """
        for face in FACES:
            shown = {name for name in dir(face) if not name.startswith("_")}
            self.assertEqual(shown, set(face.__all__), face.__name__)

    def test_help(self) -> None:
        """
        C{help} of each face shows the classes and functions among them, each with a docstring.
        """
        for face in FACES:
            text = pydoc.plain(pydoc.render_doc(face))
            for name in face.__all__:
                value = getattr(face, name)
                if inspect.isclass(value) or inspect.isfunction(value):
                    self.assertIn(name, text)
                    self.assertTrue(value.__doc__, name)

    def test_examples(self) -> None:
        """
        The docstring of each public class has an example, except those of exceptions and of what programs do not make.
        """
        values = {"Fault", "Serializer", "Compressor"}
        for face in FACES:
            for name in face.__all__:
                value = getattr(face, name)
                if not inspect.isclass(value) or issubclass(value, Exception) or name in values:
                    continue
                example = re.search(r"::\n\n((?: {4}.*\n|\n)+)", (inspect.getdoc(value) or "") + "\n")
                assert example is not None, f"{face.__name__}.{name} has no example"
                compile(dedent(example[1]), f"the example of {name}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    def test_typed(self) -> None:
        """
        No public method takes options of any name, and all parameters and results have types.
        """
        forwarding = {"performRequest", "withConnection"}
        untyped = []
        for face in FACES:
            for name in face.__all__:
                value = getattr(face, name)
                for part, method in inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else ():
                    if not method.__module__.startswith("txconnpool") or (part.startswith("_") and part != "__init__"):
                        continue
                    signature = inspect.signature(method)
                    kinds = [each for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD]
                    if part not in forwarding and any(each.annotation == "Any" for each in kinds):
                        untyped.append(f"{name}.{part}: {kinds[0]}")
                    untyped += [
                        f"{name}.{part}: {each}"
                        for each in list(signature.parameters.values())[1:]
                        if each.annotation is each.empty
                    ]
        self.assertEqual(untyped, [])

    def test_options(self) -> None:
        """
        L{testing.MemoryPool} has the options of L{memcache.MemCachePool}.
        """
        options = set(inspect.signature(memcache.MemCachePool.__init__).parameters) | set(CommonOptions.__annotations__)
        self.assertEqual(
            options - {"self", "serverAddresses", "reactor", "options"}, set(MemCacheOptions.__annotations__)
        )

    def test_parametersInHelp(self) -> None:
        """
        The descriptions of the pools' parameters do not send the reader to modules that are not public.
        """
        for each in (pool.Pool, memcache.MemCachePool, redis.RedisPool):
            text = inspect.getdoc(each.__init__) or ""
            self.assertIn("txconnpool/library.rst", text)
            self.assertEqual(re.findall(r"BasePool|endpointOf|Servers\.", text), [])
        self.assertIn("RedisPool", inspect.getdoc(service.PoolService.__init__) or "")

    def test_light(self) -> None:
        """
        Importing the package loads nothing else.
        """
        code = "import sys, txconnpool; print([name for name in sys.modules if name[:7] in ('twisted', 'txconnp')])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
        self.assertEqual(done.stdout, "['txconnpool']\n")
