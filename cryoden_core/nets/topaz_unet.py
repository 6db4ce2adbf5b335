"""The network of the published NMSG: the 3-D U-Net of Topaz-Denoise (Bepler et al. 2020), described from its tables.

Five poolings, 48 features, a first kernel of 7, no normalisation; each decoder level joins the pooled encoder level
(the last one the input itself), and the output is the network's result minus the input, as NMSG has it.  Any size goes
in; up-sampling is to the size of what is joined.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class TopazUNet3d(nn.Module):
    """U-Net (batch, 1, z, y, x) -> (batch, 1, z, y, x) with ``features`` channels; 2.9 million weights at 48."""

    def __init__(
        self, features: int = 48, depth: int = 5, base_kernel: int = 7, top: tuple[int, int] = (64, 32)
    ) -> None:
        super().__init__()
        self.architecture = {"features": features, "depth": depth, "base_kernel": base_kernel, "top": list(top)}
        self.encoder = nn.ModuleList([_layer(1, features, base_kernel)])
        self.encoder.extend(_layer(features, features) for _ in range(depth))
        self.decoder = nn.ModuleList()
        below = features
        for _ in range(depth - 1):
            wide = 2 * features
            self.decoder.append(nn.Sequential(_layer(below + features, wide), _layer(wide, wide)))
            below = wide
        self.top = nn.Sequential(
            _layer(below + 1, top[0]), _layer(top[0], top[1]), nn.Conv3d(top[1], 1, 3, padding=1)
        )  # fmt: skip

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Denoised minus-skip output; see the module's text."""
        joined, data = [volume], volume
        for layer in self.encoder[:-1]:
            data = functional.max_pool3d(layer(data), 2, ceil_mode=True)
            joined.append(data)
        data = self.encoder[-1](joined.pop())
        for block in self.decoder:
            data = block(_join(data, joined.pop()))
        return self.top(_join(data, joined.pop())) - volume


def _layer(channels_in: int, channels_out: int, kernel: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv3d(channels_in, channels_out, kernel, padding=kernel // 2), nn.LeakyReLU(0.1))


def _join(data: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.cat([functional.interpolate(data, size=other.shape[2:], mode="nearest"), other], 1)
