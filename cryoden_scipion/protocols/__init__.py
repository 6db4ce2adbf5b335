"""Protocols of CryoDen."""

from .protocol_dual_clean_domain import ProtCryodenDualCleanDomain
from .protocol_dual_convert import ProtCryodenDualConvert
from .protocol_dual_denoise import ProtCryodenDualDenoise
from .protocol_dual_simulate import ProtCryodenDualSimulate
from .protocol_dual_train import ProtCryodenDualTrain
from .protocol_dual_training_set import ProtCryodenDualTrainingSet
from .protocol_dual_wedge import ProtCryodenDualWedge
from .protocol_import_model import ProtCryodenImportModel
from .protocol_mlp_reconstruct import ProtCryodenMlpReconstruct
from .protocol_nmsg_denoise import ProtCryodenNmsgDenoise
from .protocol_pick import ProtCryodenPick

__all__ = [
    "ProtCryodenDualCleanDomain",
    "ProtCryodenDualConvert",
    "ProtCryodenDualDenoise",
    "ProtCryodenDualSimulate",
    "ProtCryodenDualTrain",
    "ProtCryodenDualTrainingSet",
    "ProtCryodenDualWedge",
    "ProtCryodenImportModel",
    "ProtCryodenMlpReconstruct",
    "ProtCryodenNmsgDenoise",
    "ProtCryodenPick",
]
