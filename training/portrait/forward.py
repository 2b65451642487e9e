"""
The denoiser's forward pass as training wants it: batched tensors, fused projections, real-valued rotary positions.

Same modules and same numbers as diffusers' `ZImageTransformer2DModel.forward`, which takes lists of pictures and
complex positions (a test holds the two together). The number of picture tokens has to be a multiple of 32: the
padding that diffusers adds otherwise is not reproduced here. Rotary halves are concatenated instead of interleaved:
queries and keys share the permutation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Turns = tuple[Tensor, Tensor]  # cosines and sines, (tokens, head width / 2)


@dataclass(frozen=True)
class Positions:
    """Rotary tables of the caption, of the picture, and of both in the order picture, caption."""

    caption: Turns
    picture: Turns
    both: Turns


def turns(ids: Tensor, axes: list[int], theta: float) -> Turns:
    """ids (tokens, 3): caption index, row, column."""
    parts = []
    for axis, width in enumerate(axes):
        rates = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width)
        parts.append(torch.outer(ids[:, axis].double(), rates))
    angles = torch.cat(parts, -1).float()
    return angles.cos(), angles.sin()


def positions(
    model: Any, text_len: int, rows: int, columns: int, device: torch.device, spacing: float = 1.0
) -> Positions:
    """Caption tokens count 1, 2, ...; picture tokens stand at text_len + 1 and (row, column), `spacing` apart."""
    zero = torch.zeros(text_len, device=device)
    caption = torch.stack([torch.arange(1, text_len + 1, device=device), zero, zero], 1)
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    middle = (spacing - 1) / 2  # a coarse token stands in the middle of the fine ones that it replaces
    y, x = y.reshape(-1) * spacing + middle, x.reshape(-1) * spacing + middle
    picture = torch.stack([torch.full_like(y, text_len + 1), y, x], 1)
    a, b = (turns(ids, model.axes_dims, model.rope_theta) for ids in (caption, picture))
    return Positions(a, b, (torch.cat([b[0], a[0]]), torch.cat([b[1], a[1]])))


def norm(x: Tensor, module: Any) -> Tensor:
    return F.rms_norm(x.to(module.weight.dtype), [x.shape[-1]], module.weight, module.eps)


def rotate(x: Tensor, at: Turns) -> Tensor:
    """x (B, tokens, heads, width)."""
    cos, sin = at[0][None, :, None], at[1][None, :, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, even * sin + odd * cos], -1)


def attend(module: Any, x: Tensor, at: Turns) -> Tensor:
    b, n, d = x.shape
    weight = torch.cat([module.to_q.weight, module.to_k.weight, module.to_v.weight], 0)
    q, k, v = F.linear(x, weight).view(b, n, 3, module.heads, d // module.heads).unbind(2)
    q = rotate(norm(q, module.norm_q), at).to(v.dtype).transpose(1, 2)
    k = rotate(norm(k, module.norm_k), at).to(v.dtype).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v.transpose(1, 2))
    mixed: Tensor = module.to_out[0](out.transpose(1, 2).reshape(b, n, d))
    return mixed


def feed(module: Any, x: Tensor) -> Tensor:
    gate, value = F.linear(x, torch.cat([module.w1.weight, module.w3.weight], 0)).chunk(2, -1)
    out: Tensor = module.w2(F.silu(gate) * value)
    return out


def block(module: Any, x: Tensor, at: Turns, time: Tensor | None) -> Tensor:
    if time is None:
        x = x + norm(attend(module.attention, norm(x, module.attention_norm1), at), module.attention_norm2)
        return x + norm(feed(module.feed_forward, norm(x, module.ffn_norm1)), module.ffn_norm2)
    scale1, gate1, scale2, gate2 = module.adaLN_modulation(time).unsqueeze(1).chunk(4, 2)
    seen = attend(module.attention, norm(x, module.attention_norm1) * (1 + scale1), at)
    x = x + gate1.tanh() * norm(seen, module.attention_norm2)
    fed = feed(module.feed_forward, norm(x, module.ffn_norm1) * (1 + scale2))
    out: Tensor = x + gate2.tanh() * norm(fed, module.ffn_norm2)
    return out


def core(model: Any, tokens: Tensor, text: Tensor, padding: Tensor, time: Tensor, at: Positions) -> Tensor:
    """tokens (B, n, 64), text (B, L, d), padding (B, L) true where no word is, time (B, 256) -> (B, n, 64)."""
    x = model.all_x_embedder["2-1"](tokens)
    for layer in model.noise_refiner:
        x = block(layer, x, at.picture, time)
    words = model.cap_embedder[1](norm(text, model.cap_embedder[0])).to(x.dtype)
    words = torch.where(padding[..., None], model.cap_pad_token.to(x.dtype), words)
    for layer in model.context_refiner:
        words = block(layer, words, at.caption, None)
    both = torch.cat([x, words], 1)
    for layer in model.layers:
        both = block(layer, both, at.both, time)
    final = model.all_final_layer["2-1"]
    x = final.norm_final(both[:, : x.shape[1]]) * (1 + final.adaLN_modulation(time)).unsqueeze(1)
    out: Tensor = final.linear(x)
    return out


Core = Callable[[Any, Tensor, Tensor, Tensor, Tensor, Positions], Tensor]


def to_tokens(latents: Tensor) -> Tensor:
    """(B, C, H, W) to 2x2 patches (B, H W / 4, 4 C), the channel fastest."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, h * w // 4, 4 * c)


def to_latents(tokens: Tensor, rows: int, columns: int) -> Tensor:
    b, _, d = tokens.shape
    grid = tokens.view(b, rows, columns, 2, 2, d // 4).permute(0, 5, 1, 3, 2, 4)
    return grid.reshape(b, d // 4, 2 * rows, 2 * columns)


def denoise(
    model: Any, latents: Tensor, clean: Tensor, text: Tensor, padding: Tensor, at: Positions, run: Core = core
) -> Tensor:
    """Raw output (B, C, H, W), x0 - noise. `clean` (B,) is 1 - sigma: 0 is pure noise, 1 the picture."""
    time = model.t_embedder(clean * model.t_scale)
    tokens = run(model, to_tokens(latents), text, padding, time, at)
    return to_latents(tokens, latents.shape[2] // 2, latents.shape[3] // 2)


def encode_text(encoder: Any, ids: Tensor, padding: Tensor) -> Tensor:
    """What the pipeline reads: the hidden states before the last layer, (B, L, d); the last layer is not run."""
    seen = encoder(input_ids=ids, attention_mask=(~padding).long(), output_hidden_states=True)
    states: Tensor = seen.hidden_states[-2]
    return states
