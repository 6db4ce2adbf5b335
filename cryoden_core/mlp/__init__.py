"""Reconstruction of a tilt series by a coordinate network that is fitted to its projections (Van Veen).

``reconstruct`` carries out the job; ``fields`` are the networks, ``losses`` what they are fitted with, ``fit`` how.
"""
