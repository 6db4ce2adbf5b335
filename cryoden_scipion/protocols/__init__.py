"""Protocols of CryoDen."""

from .protocol_dual_clean_domain import ProtCryodenDualCleanDomain
from .protocol_mlp_reconstruct import ProtCryodenMlpReconstruct
from .protocol_nmsg_denoise import ProtCryodenNmsgDenoise

__all__ = ["ProtCryodenDualCleanDomain", "ProtCryodenMlpReconstruct", "ProtCryodenNmsgDenoise"]
