"""Tilt geometry, projector with its exact adjoint, weighted back-projection and SIRT for single-axis tilt series."""
