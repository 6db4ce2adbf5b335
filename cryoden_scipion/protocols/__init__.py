"""Protocols of CryoDen."""

from .protocol_nmsg_denoise import ProtCryodenNmsgDenoise

__all__ = ["ProtCryodenNmsgDenoise"]
