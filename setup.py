# Copyright txconnpool contributors. See LICENSE.
"""
Builds the optional extension. All else is in C{setup.cfg}.
"""

import os
from glob import glob

from setuptools import Extension, setup

SOURCE = "txconnpool/extension"

#: Without a C compiler the extension is left out, with a warning. With C{TXCONNPOOL_PURE=1} it is not tried, and a
#: wheel is for any machine.
EXTENSION = Extension(
    "txconnpool._native",
    sources=sorted(glob(f"{SOURCE}/*.c")),
    depends=sorted(glob(f"{SOURCE}/*.h")),
    extra_compile_args=["-std=c11", "-Wall", "-Wextra"],
    optional=True,
)

setup(ext_modules=[] if os.environ.get("TXCONNPOOL_PURE") == "1" else [EXTENSION])
