# Copyright txconnpool contributors. See LICENSE.
"""
Tests for C{twisted/plugins/txconnpool_plugin.py}.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.plugins import txconnpool_plugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool import tap

SOURCE = Path(__file__).resolve().parents[1]


class PluginTests(SynchronousTestCase):
    """
    Tests for the plugins that the module defines.
    """

    def test_command(self) -> None:
        """
        The command is named C{connpool}, and has the options and the service of L{txconnpool.tap}.
        """
        maker = txconnpool_plugin.connpool
        verifyObject(IServiceMaker, maker)
        verifyObject(IPlugin, maker)
        self.assertEqual((maker.tapname, maker.options, maker.makeService), ("connpool", tap.Options, tap.makeService))

    def test_memory(self) -> None:
        """
        The parser of C{memory:} endpoint strings provides the interfaces that Twisted requires.
        """
        parser = txconnpool_plugin.memoryEndpointParser
        verifyObject(IStreamClientEndpointStringParserWithReactor, parser)
        verifyObject(IPlugin, parser)
        self.assertEqual(parser.prefix, "memory")

    def test_clientFromString(self) -> None:
        """
        Twisted finds the parser of C{memory:}. An invalid string is a C{ValueError}.
        """
        verifyObject(IStreamClientEndpoint, clientFromString(Clock(), "memory:size=1m"))
        self.assertRaises(ValueError, clientFromString, Clock(), "memory:size=none")

    def test_light(self) -> None:
        """
        Importing the plugin module imports nothing of txconnpool, because Twisted does it for every C{twistd} command.
        """
        code = "import sys, twisted.plugins.txconnpool_plugin; print(*sys.modules)"
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=True, timeout=600
        )
        self.assertIn("twisted.plugins.txconnpool_plugin", result.stdout.split())
        self.assertEqual([name for name in result.stdout.split() if name.startswith("txconnpool")], [])
