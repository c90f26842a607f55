"""The nine methods against the paper's equations written with softmax and log, in float64."""

import pytest
import torch
from office.methods import METHODS, Network, losses
from torch import nn

import symloss

K, F, LAM = 3, 5, 0.3


def pick(p, y):
    return p[torch.arange(len(y)), y]


def entropy_of(q):
    return -(q * q.log()).sum(1).mean()


class Paper:
    """Equations 1 to 13 on plain probabilities; s and t are features, y the source labels."""

    def __init__(self, heads, s, t, y):
        self.v_s, self.v_t = heads["task"](s), heads["task"](t)
        self.y = y
        if "domain" in heads:
            self.d_s, self.d_t = (heads["domain"](f).softmax(1) for f in (s, t))

    e1 = property(lambda p: -pick(p.v_s.softmax(1), p.y).log().mean())
    e2 = property(lambda p: -p.d_s[:, 0].log().mean() - p.d_t[:, 1].log().mean())
    e3 = property(lambda p: p.e2 / 2 - p.d_s[:, 1].log().mean() / 2 - p.d_t[:, 0].log().mean() / 2)
    em = property(lambda p: entropy_of(p.v_t.softmax(1)))
    e5 = property(lambda p: -pick(p.v_s[:, :K].softmax(1), p.y).log().mean())
    e6 = property(lambda p: -pick(p.v_s[:, K:].softmax(1), p.y).log().mean())

    @property
    def e7(self):
        p_s, p_t = self.v_s.softmax(1), self.v_t.softmax(1)
        return -p_t[:, K:].sum(1).log().mean() - p_s[:, :K].sum(1).log().mean()

    @property
    def e8(self):
        p = self.v_s.softmax(1)
        return -pick(p, self.y + K).log().mean() / 2 - pick(p, self.y).log().mean() / 2

    @staticmethod
    def uniform(v):
        p = v.softmax(1)
        return -p[:, K:].sum(1).log().mean() / 2 - p[:, :K].sum(1).log().mean() / 2

    e9 = property(lambda p: p.uniform(p.v_t))
    e12 = property(lambda p: p.uniform(p.v_s))
    e13 = property(lambda p: (p.e5 + p.e6) / 2)

    @property
    def e10(self):
        p = self.v_t.softmax(1)
        return entropy_of(p[:, :K] + p[:, K:])


# What the heads minimise, what the extractor minimises (section 4.3, and eq. 11).
PAPER = {
    "source-only": (lambda p: p.e1, lambda p: p.e1),
    "source-only-em": (lambda p: p.e1, lambda p: p.e1 + LAM * p.em),
    "domain-confusion": (lambda p: p.e1 + p.e2, lambda p: p.e1 + LAM * p.e3),
    "domain-confusion-em": (lambda p: p.e1 + p.e2, lambda p: p.e1 + LAM * (p.e3 + p.em)),
    "symnets-wo-target-task": (lambda p: p.e5 + p.e7, lambda p: p.e8 + LAM * (p.e9 + p.e10)),
    "symnets-wo-entropy": (lambda p: p.e5 + p.e6 + p.e7, lambda p: p.e8 + LAM * p.e9),
    "symnets-wo-confusion": (lambda p: p.e5 + p.e6 + p.e7, lambda p: p.e13 + LAM * p.e10),
    "symnets-wo-category-confusion": (
        lambda p: p.e5 + p.e6 + p.e7,
        lambda p: p.e12 + LAM * (p.e9 + p.e10),
    ),
    "symnets": (lambda p: p.e5 + p.e6 + p.e7, lambda p: p.e8 + LAM * (p.e9 + p.e10)),
}


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return (
        torch.randn(6, 4, dtype=torch.float64),
        torch.randn(7, 4, dtype=torch.float64),
        torch.tensor([0, 1, 2, 2, 1, 0]),
    )


def network_of(method):
    torch.manual_seed(1)
    extractor = nn.Sequential(nn.Linear(4, F), nn.Tanh())
    extractor.num_features = F
    return Network(extractor, method, K).double()


def test_the_nine_rows_of_table_4_are_there():
    assert METHODS.keys() >= PAPER.keys()
    reported = {name for name in PAPER if METHODS[name].reported == "source"}
    assert reported == {"symnets-wo-target-task"}
    assert {name for name in PAPER if not METHODS[name].target} == {"source-only"}


@pytest.mark.parametrize("name", PAPER)
def test_each_player_gets_the_gradient_of_its_own_equations(name, batch):
    method = METHODS[name]
    x_s, x_t, y = batch
    network = network_of(method)
    images = (x_s, x_t) if method.target else (x_s,)
    total, values = losses(method, network(*images), y, LAM)
    total.backward()

    paper = Paper(network.heads, network.extractor(x_s), network.extractor(x_t), y)
    heads, extractor = (loss(paper) for loss in PAPER[name])
    torch.testing.assert_close(total.double(), heads + extractor)
    for loss, module in ((heads, network.heads), (extractor, network.extractor)):
        expected = torch.autograd.grad(loss, [*module.parameters()], retain_graph=True)
        for p, gradient in zip(module.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, gradient)
    assert len(values) == len({*method.head, *method.extractor, *method.weighted})
    assert not any(value.requires_grad for value in values.values())


def test_symnets_is_the_librarys_own_objective(batch):
    x_s, x_t, y = batch
    network = network_of(METHODS["symnets"])
    source, target = network(x_s, x_t)
    total, values = losses(METHODS["symnets"], [source, target], y, LAM)
    expected = symloss.symnet_losses(source["task"], y, target["task"])
    torch.testing.assert_close(total, expected.total(LAM))
    assert values.keys() == expected._asdict().keys()
    for name, value in expected._asdict().items():
        torch.testing.assert_close(values[name], value.detach())


def test_the_discriminator_is_f_1024_1024_2():
    network = network_of(METHODS["domain-confusion"])
    shapes = [tuple(p.shape) for p in network.heads["domain"].parameters() if p.dim() == 2]
    assert shapes == [(1024, F), (1024, 1024), (2, 1024)]
