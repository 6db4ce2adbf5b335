"""A stand-in for tkinter, for a Python that was built without it.

Scipion imports its graphical interface even where none is shown.  With this folder on PYTHONPATH those imports work
and nothing can be drawn; ``make demo`` and ``make test`` use it only where the real tkinter cannot be imported.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Anything(type):
    """Makes classes that can be inherited from, and of which every attribute is another such class."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})

    def __add__(cls, other: Any) -> Any:
        return cls

    __radd__ = __or__ = __add__


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


for _part in ("font", "ttk", "messagebox", "filedialog", "simpledialog", "constants", "colorchooser"):
    _module = _StandIn(f"{__name__}.{_part}")
    sys.modules[_module.__name__] = _module
    setattr(sys.modules[__name__], _part, _module)
sys.modules[__name__].__class__ = _StandIn
