"""Protocols of CryoDen."""

from .protocol_mlp_reconstruct import ProtCryodenMlpReconstruct
from .protocol_nmsg_denoise import ProtCryodenNmsgDenoise

__all__ = ["ProtCryodenMlpReconstruct", "ProtCryodenNmsgDenoise"]
