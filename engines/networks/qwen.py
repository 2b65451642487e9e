"""
Qwen3 with the text encoder's signature: token ids in, the last hidden state but one out, which is what Z-Image reads.

The last layer, the final norm and the head are never run. Attention is causal, so padding on the right would change
nothing and there is none. Knows no tokenizer and no prompt template.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Qwen3Graph(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        model.set_attn_implementation("eager")  # the one that takes an additive mask as it is, and exports
        self.embed, self.rotary = model.embed_tokens, model.rotary_emb
        self.layers = nn.ModuleList(model.layers[:-1])

    def forward(self, ids: Tensor) -> Tensor:
        """Encode tokens. ids (1, T) int64 -> (1, T, D)"""
        x, length = self.embed(ids), ids.shape[1]
        positions = torch.arange(length, device=ids.device)
        future = positions[None, :] > positions[:, None]
        mask = torch.zeros_like(future, dtype=x.dtype).masked_fill(future, torch.finfo(x.dtype).min)[None, None]
        rope = self.rotary(x, positions[None])
        for layer in self.layers:
            x = layer(x, attention_mask=mask, position_embeddings=rope)
        hidden: Tensor = x
        return hidden
