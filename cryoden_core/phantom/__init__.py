"""Specimens of which everything is known, and the tomograms an electron microscope would make of them.

``spheres`` holds hollow spheres with exact projections; ``packing`` fills a field with macromolecules, vesicles and
gold beads (the grand model), ``cell`` with membranes of many shapes, filaments and clusters in varying composition;
``acquisition`` turns a density map into a noisy tilt series and its reconstructions; ``create`` does all of it for a
job and writes the files.  Nothing is loaded here, so that importing is free.
"""
