"""Viewers of CryoDen."""

from .viewer_mlp import CryodenMlpViewer
from .viewer_nmsg import CryodenNmsgViewer

__all__ = ["CryodenMlpViewer", "CryodenNmsgViewer"]
