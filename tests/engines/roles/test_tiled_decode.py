"""A picture decoded in pieces is the picture, wherever the decoder looks no farther than the overlap."""

from __future__ import annotations

import numpy as np
import pytest

from engines.roles import tiled_decode

STRIDE = 4


def enlarge(latents: tiled_decode.Floats) -> tiled_decode.Floats:
    return latents[:, :3].repeat(STRIDE, 2).repeat(STRIDE, 3)


@pytest.mark.parametrize(
    "rows, columns",
    [(8, 10), (16, 16), (8, 80), (64, 64), (40, 24), (65, 64), (128, 96), (112, 113), (200, 70)],
)
def test_a_decoder_that_looks_at_single_cells_is_not_changed(rows: int, columns: int) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, rows, columns), dtype=np.float32)
    seen = []

    def run(piece: tiled_decode.Floats) -> tiled_decode.Floats:
        seen.append(piece.shape[2:])
        return enlarge(piece)

    np.testing.assert_allclose(tiled_decode.decode(run, latents, STRIDE), enlarge(latents), atol=1e-5)
    assert all(height <= tiled_decode.SIDE and width <= tiled_decode.SIDE for height, width in seen)
    assert len(set(seen)) == 1  # one shape: compiled engines are not asked to prepare for another


def test_pieces_that_differ_go_over_into_each_other_in_a_line() -> None:
    """Each piece comes out in a flat colour of its own: there is no step between them."""
    shades = iter((0.0, 1.0))
    latents = np.zeros((1, 4, tiled_decode.SIDE, 2 * tiled_decode.SIDE - tiled_decode.OVERLAP), np.float32)
    drawn = tiled_decode.decode(lambda piece: np.full_like(enlarge(piece), next(shades)), latents, STRIDE)[0, 0, 0]
    assert drawn[0] == 0 and drawn[-1] == 1
    steps = np.diff(drawn)
    assert steps.min() >= 0 and steps.max() <= 1.01 / (tiled_decode.OVERLAP * STRIDE)
