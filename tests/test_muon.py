"""The decoder's optimiser: orthogonal steps for kernels, AdamW as torch computes it for all else."""

import torch

from phenolens.models.muon import BETAS, DECAY, Muon, orthogonalised


def test_a_step_keeps_the_directions_of_a_matrix_and_brings_its_singular_values_near_one():
    for shape in ((6, 40), (40, 6), (8, 8)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        kept = u.T @ orthogonalised(matrix) @ v.T
        assert ((kept.diagonal() > 0.6) & (kept.diagonal() < 1.3)).all()
        assert (kept - torch.diag(kept.diagonal())).abs().max() < 1e-3


def test_other_parameters_move_as_by_adamw():
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    muon = Muon([], [ours], kernel_rate=0.02, rate=1e-2)
    adam = torch.optim.AdamW([theirs], lr=1e-2, betas=BETAS, weight_decay=DECAY[1])
    for step in range(20):
        for parameter, optimiser in ((ours, muon), (theirs, adam)):
            optimiser.zero_grad()
            ((parameter - step) ** 2).sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_kernel_learns_a_badly_scaled_problem_that_it_would_not_learn_by_its_gradient():
    scales = torch.tensor([1.0, 0.01])
    target = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    kernel = torch.nn.Parameter(torch.zeros(2, 2))
    muon = Muon([kernel], [], kernel_rate=0.05, rate=0)
    for _ in range(200):
        muon.zero_grad()
        (((kernel - target) * scales) ** 2).sum().backward()
        muon.step()
    assert ((kernel - target).abs() < 0.3).all()
