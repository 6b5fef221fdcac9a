"""The compiled parts; everything else is in pyproject.toml.

The most costly loop of reading Philips files, and the network for CPUs. Where there is no C compiler they are left out:
Python does the one more slowly, another engine the other.
"""

from __future__ import annotations

import sysconfig

from setuptools import Extension, setup

# One wheel for a platform serves every Python from 3.11 on. Free-threaded builds know no such interface: there each
# version has its own.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")


def extension(name: str, *, depends: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> Extension:
    """The extension whose source lies where its module is to be."""
    return Extension(
        name,
        sources=[f"src/{name.replace('.', '/')}.c"],
        depends=list(depends),
        define_macros=[("Py_LIMITED_API", "0x030b0000")] if STABLE else [],
        extra_compile_args=list(flags),
        py_limited_api=STABLE,
        optional=True,
    )


setup(
    ext_modules=[
        extension("ecgfounder.readers.philips._xli"),
        extension(
            "ecgfounder.engines._net1d",
            depends=("src/ecgfounder/engines/_net1d_kernels.h",),
            flags=("-O3", "-ffp-contract=off"),
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
