"""Joint logits and labels to try the losses on, and how results are compared."""

import torch

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def halves(cases):
    """Cases (dtype, scale, shift, the gradient's tolerance), each with the logits to be shifted."""
    both = [slice(None), slice(5), slice(5, None)]
    return [(*case, half) for case in cases for half in (both if case[2] else both[:1])]


EXTREMES = halves(
    [
        (torch.float32, 1e4, 0.0, 1e-4),
        (torch.float32, 3.0, 1e3, 1e-4),
        (torch.float32, 3.0, 1e4, 1e-4),
        (torch.float32, 3.0, -1e4, 1e-4),
        (torch.float16, 2e4, 0.0, 1e-3),
        (torch.bfloat16, 1e38, 0.0, 1e-2),
    ]
)


def draw(shape, dtype=torch.float64, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(shape[1] // 2, shape[:1] + shape[2:], generator=generator)
    return logits.to(dtype), labels


def unflatten(gradient, shape):
    return torch.as_tensor(gradient).reshape(*shape[:1], *shape[2:], shape[1]).movedim(-1, 1)


def relative(got, want):
    # A gradient that is 0 in float64 has no relative error: there any difference counts.
    return ((got.double() - want).abs().max() / want.abs().max().clamp(min=1e-30)).item()
