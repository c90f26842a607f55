"""What the code of the explanation is run with."""

import torch
import torch.nn.functional as F

import symloss

torch.manual_seed(0)
features = torch.randn(6, 4, requires_grad=True)
W, c = torch.randn(6, 4, requires_grad=True), torch.randn(6, requires_grad=True)


def check(names):
    passes = names["for_head"], names["for_extractor"]
    assert torch.equal(*passes)
    reached = [
        [g is not None for g in torch.autograd.grad(v.sum(), [features, W, c], allow_unused=True)]
        for v in passes
    ]
    assert reached == [[False, True, True], [True, False, False]]
    v = names["v"]
    as_printed = -(names["P_s"].log() + names["P_t"].log()) / 2
    assert as_printed.item() == float("inf")
    assert symloss.functional.domain_confusion(v).item() == 100
    assert F.softmax(v, 1)[0, 0] == 0
