"""The distribution ``scipion-em-cryoden``: the plugin (light) and, with the extra ``core``, what computes.

The base requirements are those of the Scipion plugin alone, which runs in Scipion's own environment and never
imports torch.  The extra ``core`` needs Python 3.11 or newer.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version():
    """The version as written in the core; read as text, so that building imports nothing."""
    text = (HERE / "cryoden_core" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


PLUGIN = [
    "scipion-pyworkflow>=3.11.6",
    "scipion-em>=3.11.1",
    "scipion-em-tomo>=3.12.1",
    "mrcfile",
    "numpy",
    "scipy",
    "matplotlib",
    "emtable",
]

CORE = [
    "torch",
    "scikit-image",
    "safetensors",
    "tqdm",
    "tyro",
    "torch-ctf",
    "psutil",
    "gemmi",
]

DEMO = [
    *CORE,
    "scipion-app",
]

TEST = [
    *DEMO,
    "pytest",
    "ruff",
    "mypy",
    "scipion-em-imod",
]

BENCH = [
    *CORE,
    "SimpleITK",
    "bm4d",
]

setup(
    name="scipion-em-cryoden",
    version=version(),
    description="Restoration of cryo-electron tomograms: a Scipion plugin and a command line",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="GPL-3.0-or-later",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: X11 Applications",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    keywords="scipion cryo-em electron-tomography denoising",
    python_requires=">=3.8",
    packages=find_packages(include=["cryoden_core*", "cryoden_scipion*"]),
    install_requires=PLUGIN,
    extras_require={"core": CORE, "demo": DEMO, "test": TEST, "bench": BENCH},
    package_data={"cryoden_scipion": ["protocols.conf", "icon.png", "templates/*"]},
    entry_points={
        "pyworkflow.plugin": ["cryoden_scipion = cryoden_scipion"],
        "console_scripts": ["cryoden = cryoden_core.__main__:main"],
    },
)
