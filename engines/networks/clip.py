"""
CLIP's text model with the text encoder's signature: token ids in, the last hidden state under the final norm, which is
what Stable Diffusion reads. Attention is causal; the filling to the right of the words is read with them, as the
pipeline does. Knows no tokenizer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ClipGraph(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        model.set_attn_implementation("eager")  # the one that takes an additive mask as it is, and exports
        self.tokens, self.positions = model.embeddings.token_embedding, model.embeddings.position_embedding
        self.layers, self.norm = model.encoder.layers, model.final_layer_norm

    def forward(self, ids: Tensor) -> Tensor:
        """Encode tokens. ids (1, T) int64 -> (1, T, D)"""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.positions(places)
        future = places[None, :] > places[:, None]
        mask = torch.zeros_like(future, dtype=x.dtype).masked_fill(future, torch.finfo(x.dtype).min)[None, None]
        for layer in self.layers:
            x = layer(x, attention_mask=mask)
        hidden: Tensor = self.norm(x)
        return hidden
