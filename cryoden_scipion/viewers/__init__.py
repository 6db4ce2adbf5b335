"""Viewers of CryoDen."""

from .viewer_nmsg import CryodenNmsgViewer

__all__ = ["CryodenNmsgViewer"]
