"""
Z-Image's transformer with the denoiser's signature (engines/bundle/signatures.py), for running and for export.

The same function as diffusers' ZImageTransformer2DModel for one picture and one caption, with two changes that
exporters need: rotary embeddings in real numbers instead of complex64, and sequence lengths that may vary. Knows
nothing of noise levels or signs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEQUENCE_MULTIPLE = 32  # both sequences are filled up to it with learned tokens, which are attended to
PATCH = 2


class RealRotaryAttention:
    """
    Attention processor for diffusers' Attention: rotates pairs of channels by tables of cosines and sines. (Su et al.
    2021)
    """

    def __init__(self, head_dim: int) -> None:
        self.turn = _quarter_turn(head_dim)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        freqs_cis: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        heads = (len(hidden_states), -1, attn.heads, attn.to_q.out_features // attn.heads)
        q, k, v = (project(hidden_states).view(heads) for project in (attn.to_q, attn.to_k, attn.to_v))
        assert freqs_cis is not None  # the graph below always passes it
        q, k = (_rotate(norm(x), *freqs_cis, self.turn) for norm, x in ((attn.norm_q, q), (attn.norm_k, k)))
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return projected


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, turn: Tensor) -> Tensor:
    """
    Rotate x (B, S, heads, d) by cos and sin (S, 1, d), with turn (d, d): neighbouring channels form the pairs. The
    quarter turn of each pair is a small matrix product, which compiled engines do several times faster than taking the
    channels apart and weaving them together again.
    """
    return (x * cos + (x @ turn.to(x)) * sin).to(x)


def _quarter_turn(dim: int) -> Tensor:
    """Return the matrix (d, d) that x is multiplied by to turn each pair of channels (even, odd) into (-odd, even)."""
    turn = torch.zeros(dim, dim)
    even = torch.arange(0, dim, 2)
    turn[even + 1, even], turn[even, even + 1] = -1.0, 1.0
    return turn


class ZImageGraph(nn.Module):
    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.net = transformer
        for block in (*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers):
            block.attention.set_processor(RealRotaryAttention(sum(transformer.axes_dims)))
        axes = zip(transformer.axes_dims, transformer.axes_lens, strict=True)
        for i, (dim, length) in enumerate(axes):
            angle = _angles(dim, length, transformer.rope_theta)
            self.register_buffer(f"cos{i}", angle.cos(), persistent=False)  # (length, dim)
            self.register_buffer(f"sin{i}", angle.sin(), persistent=False)

    def forward(self, latents: Tensor, time: Tensor, prompt: Tensor) -> Tensor:
        """
        Predict the velocity. latents (B, C, h, w), time (B,) from 0 = noise to 1 = picture, prompt (B, T, D) -> (B, C,
        h, w). One picture at a time is what engines run; training takes several.
        """
        net, (rows, columns) = self.net, (latents.shape[2] // PATCH, latents.shape[3] // PATCH)
        temb = net.t_embedder(time * net.t_scale)
        caption, caption_length = _fill(net.cap_embedder(prompt), net.cap_pad_token)
        image, _ = _fill(net.all_x_embedder["2-1"](_patches(latents)), net.x_pad_token)
        caption_rope = self._caption_rope(caption_length)
        image_rope = self._image_rope(rows, columns, caption_length, image.shape[1])
        for block in net.noise_refiner:
            image = block(image, None, image_rope, temb)
        for block in net.context_refiner:
            caption = block(caption, None, caption_rope)
        both, rope = (
            torch.cat((image, caption), 1),
            [torch.cat(pair) for pair in zip(image_rope, caption_rope, strict=True)],
        )
        for block in net.layers:
            both = block(both, None, rope, temb)
        out: Tensor = net.all_final_layer["2-1"](both[:, : rows * columns], temb)
        return _unpatch(out, rows, columns)

    def _caption_rope(self, length: int) -> tuple[Tensor, Tensor]:
        """Return the rotation of the caption's tokens, which stand at (1 + i, 0, 0)."""
        return self._table("cos", 1, length), self._table("sin", 1, length)

    def _table(self, kind: str, start: int, length: int) -> Tensor:
        first = getattr(self, f"{kind}0")[start : start + length]
        rest = [getattr(self, f"{kind}{i}")[:1].expand(length, -1) for i in (1, 2)]
        return torch.cat((first, *rest), -1)[:, None]

    def _image_rope(self, rows: int, columns: int, caption_length: int, total: int) -> tuple[Tensor, Tensor]:
        """
        Return the rotation of the patches, which stand at (caption length + 1, row, column); what fills the sequence up
        stands at (0, 0, 0).
        """
        tables = []
        for kind in ("cos", "sin"):
            t, y, x = (getattr(self, f"{kind}{i}") for i in range(3))
            grid = torch.cat(
                (
                    t[caption_length + 1 : caption_length + 2, None].expand(rows, columns, -1),
                    y[:rows, None].expand(rows, columns, -1),
                    x[None, :columns].expand(rows, columns, -1),
                ),
                -1,
            ).flatten(0, 1)
            filler = torch.cat((t[:1], y[:1], x[:1]), -1)
            tables.append(_fill(grid[None], filler, total)[0][0][:, None])
        return tables[0], tables[1]


def _angles(dim: int, length: int, theta: float) -> Tensor:
    """Return the angle of every position and channel (length, dim); the two channels of a pair turn alike."""
    frequencies = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequencies).float().repeat_interleave(2, 1)


def _fill(tokens: Tensor, filler: Tensor, total: int | None = None) -> tuple[Tensor, int]:
    """Lengthen (B, S, D) with copies of filler (1, D). Written as a gather, so that adding none is the same graph as
    adding some.
    """
    length = tokens.shape[1]
    if total is None:
        total = (length + SEQUENCE_MULTIPLE - 1) // SEQUENCE_MULTIPLE * SEQUENCE_MULTIPLE
    index = torch.arange(total, device=tokens.device)
    taken = tokens[:, index.clamp(max=length - 1)]
    return torch.where((index < length)[None, :, None], taken, filler), total


def _patches(latents: Tensor) -> Tensor:
    """Cut latents into patches, the channel last within each. (B, C, h, w) -> (B, h/2 * w/2, 4 C)"""
    count, channels, rows, columns = *latents.shape[:2], latents.shape[2] // PATCH, latents.shape[3] // PATCH
    x = latents.view(count, channels, rows, PATCH, columns, PATCH)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, PATCH * PATCH * channels)


def _unpatch(tokens: Tensor, rows: int, columns: int) -> Tensor:
    x = tokens.view(len(tokens), rows, columns, PATCH, PATCH, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, rows * PATCH, columns * PATCH)
