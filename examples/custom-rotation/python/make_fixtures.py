"""tests/data/reference.json: products of Givens rotations as the paper defines them, in float64 by torch.

Each case has the number of features, angles, rows of input and what the rotation makes of them, the numbers
`weights` of a loss sum(weights * output), and the gradients of the angles and the input. The rotation is the
product of its dense matrices, one after another.
"""

import json
import math
from pathlib import Path

import torch

torch.set_default_dtype(torch.float64)


def givens(features, i, j, angle):
    """x @ matrix turns the features i and j of x."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    basis = torch.eye(features)
    unit = lambda a, b: torch.outer(basis[a], basis[b])
    keep = torch.eye(features) - unit(i, i) - unit(j, j)
    return keep + cos * (unit(i, i) + unit(j, j)) + sin * (unit(j, i) - unit(i, j))


def rotation(angles):
    """`angles[j - 1]` is that of the pair whose second feature is j."""
    features = len(angles) + 1
    matrix, distance = torch.eye(features), 1
    while distance < features:
        for i in range(0, features - distance, 2 * distance):
            j = i + distance
            matrix = matrix @ givens(features, i, j, angles[j - 1])
        distance *= 2
    return matrix


def case(features, seed):
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=generator).float().double()
    angles = (random(features - 1) * math.pi / 2).requires_grad_()
    x, weights = random(3, features).requires_grad_(), random(3, features)
    matrix = rotation(angles)
    assert torch.allclose(matrix.T @ matrix, torch.eye(features))
    y = x @ matrix
    (weights * y).sum().backward()
    values = {"input": x, "angles": angles, "weights": weights, "output": y}
    values |= {"angles_gradient": angles.grad, "input_gradient": x.grad}
    flat = {key: [round(v, 9) for v in value.detach().flatten().tolist()] for key, value in values.items()}
    return {"features": features} | flat


file = Path(__file__).resolve().parent.parent / "tests/data/reference.json"
file.write_text(json.dumps([case(features, features) for features in (2, 3, 8, 13, 20)], indent=1) + "\n")
