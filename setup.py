"""The compiled parts of the package; everything else is in pyproject.toml.

They are the most costly loops of reading Philips, SCP-ECG, HL7 aECG, CardioSoft and WFDB files, of filters and quality flags,
of numbers as text, and the network on a CPU. Without a C compiler they are left out: Python code or orjson replaces the loops,
another engine replaces the network.
"""

from __future__ import annotations

import sysconfig

from setuptools import Extension, setup

# With the stable ABI, one wheel per platform works for every Python from 3.11 on. Free-threaded builds of Python do not support
# it: they need a wheel for each version.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")

WIDE = "src/ecgfounder/_wide.h"


def extension(name: str, *, depends: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> Extension:
    """An extension whose C source is beside the module that it becomes."""
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
        extension("ecgfounder.readers.philips._xli", depends=(WIDE,), flags=("-O3", "-ffp-contract=off")),
        extension("ecgfounder.readers._loops", depends=(WIDE,), flags=("-O3", "-ffp-contract=off")),
        extension(
            "ecgfounder.preprocess._passes", depends=(WIDE,), flags=("-O3", "-ffp-contract=off", "-fopenmp-simd")
        ),
        extension("ecgfounder.sinks._numbers", depends=(WIDE,), flags=("-O3", "-fopenmp-simd")),
        extension("ecgfounder.preprocess._filters", flags=("-O3", "-ffp-contract=off")),
        extension(
            "ecgfounder.engines._net1d",
            depends=(
                "src/ecgfounder/engines/_net1d_kernels.h",
                "src/ecgfounder/engines/_net1d_spectra.h",
            ),
            flags=("-O3", "-ffp-contract=off"),
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
