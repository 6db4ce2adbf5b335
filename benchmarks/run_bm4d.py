"""Denoise a volume with BM4D from its noise's power spectrum; a program of its own, run by ``nmsg_quality.py``.

BM4D 4.2.5 (Maggioni et al. 2013; Makinen et al. 2022 for coloured noise) may not be redistributed, and its spectrum
mode fails with NumPy 2.4 and with SciPy 1.10; NumPy 1.26.4 with SciPy 1.13.0 works.  Therefore it has an interpreter of
its own, which needs nothing of CryoDen.

The spectrum is that of ``numpy.fft.fftn`` of the noise, E|FFT(noise)|^2, with the volume's shape: white noise of
variance 1 has as many as there are voxels.
"""

import argparse

import bm4d
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", help="noisy volume (.npy)")
    parser.add_argument("spectrum", help="power spectrum of the noise (.npy)")
    parser.add_argument("output", help="denoised volume (.npy)")
    arguments = parser.parse_args()
    volume = np.ascontiguousarray(np.load(arguments.volume), dtype=np.float64)
    spectrum = np.ascontiguousarray(np.load(arguments.spectrum), dtype=np.float64)
    np.save(arguments.output, np.asarray(bm4d.bm4d(volume, spectrum), dtype=np.float32))


if __name__ == "__main__":
    main()
