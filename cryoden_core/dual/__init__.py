"""DUAL: learn to denoise and to simulate tomograms from unpaired noisy and clean volumes (Zeng et al. 2024)."""
