"""NMSG: self-supervised denoising of a single tomogram by noise modelling and sparsity guidance.

After Yang et al., Ultramicroscopy 255:113860 (2024).  The noise of the tomogram is modelled from the tomogram itself,
fresh noise makes recorrupted pairs, and a U-Net is trained on them with guidance and sparsity terms.  The missing
wedge is not restored.
"""
