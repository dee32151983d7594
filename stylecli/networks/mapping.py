"""The mapping network f: Z -> W of StyleGAN, with its moving average and truncation."""

import torch
from torch import Tensor, nn

from stylecli.errors import UsageError
from stylecli.networks.config import StyleGAN1Config
from stylecli.networks.layers import SQRT2, EqualLinear, check_labels, leaky_relu, lerp
from stylecli.ops.epilogue import pixel_norm


class MappingNetwork(nn.Module):
    """f: Z -> W, a stack of dense layers behind a normalisation of the input (§2 of the paper)."""

    w_avg: Tensor

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__()
        self.config = config
        width = config.z_dim
        self.label_embedding: nn.Parameter | None = None
        if config.label_dim:
            if config.label_mode == "embed":
                # No equalised learning rate here, as in the official networks.
                self.label_embedding = nn.Parameter(torch.randn(config.label_dim, config.z_dim))
                width += config.z_dim
            else:
                width += config.label_dim
        self.layers = nn.ModuleList()
        for index in range(config.mapping_layers):
            last = index == config.mapping_layers - 1
            out = config.w_dim if last else config.mapping_fmaps
            self.layers.append(EqualLinear(width, out, gain=SQRT2, lrmul=config.mapping_lrmul))
            width = out
        self.register_buffer("w_avg", torch.zeros(width))

    def embed(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map latents [N, z_dim] (and labels [N, label_dim]) to w [N, w_dim], nothing else."""
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise UsageError(
                f"latents have shape {list(z.shape)}: this network needs [N, {self.config.z_dim}]"
            )
        check_labels(c, self.config.label_dim, len(z))
        x = z
        if self.config.label_dim and c is not None:
            c = c.to(z.dtype)
            label = c if self.label_embedding is None else c @ self.label_embedding
            x = torch.cat([z, label], dim=1)
        x = pixel_norm(x)
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return x

    @torch.no_grad()
    def update_w_avg(self, w: Tensor) -> None:
        """Move w_avg towards the mean of a batch w [N, w_dim]: lerp(mean, w_avg, w_avg_beta)."""
        mean = w.detach().mean(dim=0).to(self.w_avg.dtype)
        self.w_avg.copy_(lerp(mean, self.w_avg, self.config.w_avg_beta))

    def broadcast(self, w: Tensor) -> Tensor:
        """Repeat w [N, w_dim] for every layer: [N, num_ws, w_dim]."""
        return w.unsqueeze(1).expand(-1, self.config.num_ws, -1)

    def truncate(self, ws: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Pull the first ``cutoff`` layers (None: all) towards w_avg: w_avg + psi·(w - w_avg)."""
        if psi == 1.0:
            return ws
        if not self.config.has_w:
            raise UsageError(
                f"configuration {self.config.preset!r} has no intermediate latent space: "
                "truncation needs one, use psi 1"
            )
        layers = torch.arange(ws.shape[1], device=ws.device)
        strength = torch.full((ws.shape[1],), psi, dtype=ws.dtype, device=ws.device)
        if cutoff is not None:
            strength = torch.where(layers < cutoff, strength, torch.ones_like(strength))
        return self.w_avg + (ws - self.w_avg) * strength.view(1, -1, 1)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map z [N, z_dim] to one latent per layer, ws [N, num_ws, w_dim].

        In training mode also moves w_avg. Truncation acts on the first ``truncation_cutoff``
        layers, None means all. Raises UsageError for wrong shapes or labels.
        """
        w = self.embed(z, c)
        if self.training:
            self.update_w_avg(w)
        return self.truncate(self.broadcast(w), truncation_psi, truncation_cutoff)
