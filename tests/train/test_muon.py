"""Muon: its steps against singular values and against torch's."""

import pytest
import torch

from deliberate.train.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_a_step_s_singular_vectors_are_the_gradient_s_and_its_values_near_one(shape):
    generator = torch.Generator().manual_seed(1)
    given = torch.randn(3, *shape, generator=generator)
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    values = left.mT @ orthogonal(given) @ right.mT
    diagonal = values.diagonal(dim1=1, dim2=2)
    assert ((diagonal > 0.6) & (diagonal < 1.25)).all()
    assert (values - torch.diag_embed(diagonal)).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_matrices_move_as_torch_s_muon_moves_them_and_the_rest_as_adamw_does(shape):
    generator = torch.Generator().manual_seed(2)
    first = [torch.randn(size, generator=generator) for size in (shape, shape, (12,))]
    ours, theirs = ([torch.nn.Parameter(each.clone()) for each in first] for _ in range(2))
    groups = [{"params": ours[:2], "orthogonal": True}, {"params": ours[2:]}]
    optimizers = [
        Muon(groups, lr=0.01, weight_decay=0.1),
        torch.optim.Muon(theirs[:2], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(theirs[2:], lr=0.01, weight_decay=0.1),
    ]
    for _ in range(3):
        for our, their in zip(ours, theirs, strict=True):
            our.grad = torch.randn(our.shape, generator=generator)
            their.grad = our.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for begin, our, their in zip(first, ours, theirs, strict=True):
        near = 0.02 if begin.ndim == 2 else 1e-7  # torch's Muon computes in bfloat16
        assert (our - their).norm() < near * (their - begin).norm()


def test_a_matrix_without_a_gradient_stays():
    matrices = [torch.nn.Parameter(torch.eye(2)) for _ in range(2)]
    optimizer = Muon([{"params": matrices, "orthogonal": True}], lr=0.01, weight_decay=0.1)
    matrices[0].grad = torch.eye(2)
    optimizer.step()
    assert not torch.equal(matrices[0], torch.eye(2))
    assert torch.equal(matrices[1], torch.eye(2))
