"""Viewers of CryoDen."""

from .viewer_clean_domain import CryodenCleanDomainViewer
from .viewer_dual import CryodenDualTrainViewer, CryodenDualViewer
from .viewer_mlp import CryodenMlpViewer
from .viewer_nmsg import CryodenNmsgViewer
from .viewer_pick import CryodenPickViewer

__all__ = [
    "CryodenCleanDomainViewer",
    "CryodenDualTrainViewer",
    "CryodenDualViewer",
    "CryodenMlpViewer",
    "CryodenNmsgViewer",
    "CryodenPickViewer",
]
