"""Viewers of CryoDen."""

from .viewer_dual import CryodenDualTrainViewer, CryodenDualViewer
from .viewer_mlp import CryodenMlpViewer
from .viewer_nmsg import CryodenNmsgViewer

__all__ = ["CryodenDualTrainViewer", "CryodenDualViewer", "CryodenMlpViewer", "CryodenNmsgViewer"]
