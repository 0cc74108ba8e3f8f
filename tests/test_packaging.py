# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the contents of the wheel and the source distribution. C{.ci/packaging} tests their installation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txconnpool import __version__

SOURCE = Path(__file__).resolve().parents[1]

#: Files of the package that are not modules.
DATA = ("txconnpool/py.typed", "txconnpool/_native.pyi", "txconnpool/operate/status.html")


def tooOld() -> str | None:
    """
    @return: the reason why nothing can be built here, for the C{skip} of a test case, or C{None}.
    """
    try:
        # Older ones need the package `wheel` to build one.
        enough = tuple(map(int, version("setuptools").split(".")[:2])) >= (70, 1)
    except ModuleNotFoundError:
        enough = False
    return None if enough else "setuptools 70.1 or newer is not installed"


def sources(folder: str, pattern: str = "*.py") -> set[str]:
    """
    @return: the files below a folder of the checkout, as paths relative to the checkout.
    """
    return {str(path.relative_to(SOURCE)) for path in (SOURCE / folder).rglob(pattern)}


class PackagingTests(SynchronousTestCase):
    """
    Tests for the wheel and the source distribution.
    """

    skip = tooOld()

    def build(self, what: str, **environment: str) -> Path:
        """
        Build a package from a copy of the checkout, so that no build files remain in it.

        @param what: C{"wheel"} or C{"sdist"}.
        @param environment: variables of the environment that differ.
        @return: the path of the package.
        """
        copy, target = Path(self.mktemp()), Path(self.mktemp())
        hidden = shutil.ignore_patterns(".*", "_trial_temp*", "*.egg-info", "build", "dist", "__pycache__", "*.so")
        shutil.copytree(SOURCE, copy, ignore=hidden)
        target.mkdir()
        code = f"import sys; from setuptools.build_meta import build_{what}; build_{what}(sys.argv[1])"
        subprocess.run(
            [sys.executable, "-c", code, str(target.absolute())],
            cwd=copy, env={**os.environ, **environment}, capture_output=True, check=True, timeout=600,
        )  # fmt: skip
        (built,) = target.iterdir()
        return built

    def test_wheel(self) -> None:
        """
        The wheel contains the package and the plugin, but no tests and no file that could belong to another package.
        Without the extension it is for any machine, and so it is if no compiler works.
        """
        for environment in ({"TXCONNPOOL_PURE": "1"}, {"TXCONNPOOL_PURE": "", "CC": "false"}):
            self.checkWheel(self.build("wheel", **environment))

    def checkWheel(self, path: Path) -> None:
        """
        Assert that a wheel has the right contents.
        """
        with zipfile.ZipFile(path) as wheel:
            names = set(wheel.namelist())
            metadata = wheel.read(f"txconnpool-{__version__}.dist-info/METADATA").decode()
        info = {name for name in names if name.startswith(f"txconnpool-{__version__}.dist-info/")}
        expected = {*sources("txconnpool"), *DATA, "twisted/plugins/txconnpool_plugin.py"}
        self.assertEqual(names - info, expected)
        self.assertIn("LICENSE", {name.rpartition("/")[2] for name in info})
        requires = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra" not in line]
        self.assertEqual(requires, ["Requires-Dist: twisted>=24.7", "Requires-Dist: zope.interface>=5"])
        for extra in ("tls", "test", "dev"):
            self.assertIn(f"Provides-Extra: {extra}\n", metadata)

    def test_sdist(self) -> None:
        """
        The source distribution contains all files that are needed to build, to test and to configure.
        """
        with tarfile.open(self.build("sdist")) as sdist:
            names = {name.partition("/")[2] for name in sdist.getnames()}
        expected = {
            *sources("txconnpool"),
            *sources("tests"),
            *sources("tests", "*.json"),
            *sources("txconnpool/extension", "*.*"),
            *sources("conf", "*.*"),
            *(
                "LICENSE",
                "CHANGES.rst",
                "CONTRIBUTING.rst",
                "README.rst",
                "txconnpool/README.rst",
                "txconnpool/library.rst",
            ),
            *("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in"),
            *(*DATA, "twisted/plugins/txconnpool_plugin.py"),
        }
        self.assertEqual(expected - names, set())
        self.assertEqual({name for name in names if name.endswith((".pyc", "dropin.cache", ".so"))}, set())

    def test_twistedUntouched(self) -> None:
        """
        The folders C{twisted} and C{twisted/plugins} have no C{__init__.py}. It would replace Twisted's own file when
        txconnpool is installed, and delete it when txconnpool is uninstalled.
        """
        self.assertEqual(sources("twisted"), {"twisted/plugins/txconnpool_plugin.py"})
