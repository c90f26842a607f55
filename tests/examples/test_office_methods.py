"""The methods against their equations written with softmax and log, in float64."""

import pytest
import torch
from office.methods import METHODS, Settings, losses
from torch import nn
from train_office import Network

import symloss

K, F, LAM, BALANCE = 3, 5, 0.3, 2.0
UNIFORM = torch.full((K,), 1 / K, dtype=torch.float64)


def pick(p, y):
    return p[torch.arange(len(y)), y]


def entropy_of(q):
    return -(q * q.log()).sum(1).mean()


class Paper:
    """Equations 1 to 37 on plain probabilities; s and t are features, y the source labels.

    Source images weigh as their labels do in (5), (6), (8) and in the source's part of (37).
    """

    def __init__(self, head, s, t, y, weight=None):
        self.y = y
        w = torch.ones(len(y), dtype=s.dtype) if weight is None else weight[y]
        self.share = w / w.sum()
        classifier = getattr(head, "task", head)
        v_s, v_t = classifier(s), classifier(t)
        self.p_s, self.p_t = v_s.softmax(1), v_t.softmax(1)
        self.s_of_source, self.t_of_source = v_s[:, :K].softmax(1), v_s[:, K:].softmax(1)
        if hasattr(head, "domain"):
            self.d_s, self.d_t = (head.domain(f).softmax(1) for f in (s, t))

    def e1(self):
        return -pick(self.p_s, self.y).log().mean()

    def e2(self):
        return -self.d_s[:, 0].log().mean() - self.d_t[:, 1].log().mean()

    def e3(self):
        swapped = -self.d_s[:, 1].log().mean() - self.d_t[:, 0].log().mean()
        return self.e2() / 2 + swapped / 2

    def em(self):
        return entropy_of(self.p_t)

    def e5(self):
        return -(self.share * pick(self.s_of_source, self.y).log()).sum()

    def e6(self):
        return -(self.share * pick(self.t_of_source, self.y).log()).sum()

    def e7(self):
        return -self.p_t[:, K:].sum(1).log().mean() - self.p_s[:, :K].sum(1).log().mean()

    def e8(self):
        own, other = pick(self.p_s, self.y), pick(self.p_s, self.y + K)
        return -(self.share * (own.log() + other.log())).sum() / 2

    def e9(self):
        return uniform(self.p_t)

    def e10(self):
        return entropy_of(self.p_t[:, :K] + self.p_t[:, K:])

    def balance(self, prior=None):
        m = (self.p_t[:, :K] + self.p_t[:, K:]).mean(0)
        return (m * (m / (torch.ones(K) / K if prior is None else prior)).log()).sum()

    def e36(self):
        log, other = self.p_t.log(), self.p_t.roll(K, 1)
        return -(other * log).sum(1).mean() / 2

    def e37(self):
        known = pick(self.p_s, self.y).log()
        return -(self.share * known).sum() - self.p_t[:, K:].sum(1).log().mean()

    def e12(self):
        return uniform(self.p_s)

    def e13(self):
        return (self.e5() + self.e6()) / 2


def uniform(p):
    return -p[:, K:].sum(1).log().mean() / 2 - p[:, :K].sum(1).log().mean() / 2


# What the heads minimise, what the extractor minimises (section 4.3, and eq. 11).
PAPER = {
    "source-only": (lambda p: p.e1(), lambda p: p.e1()),
    "source-only-em": (lambda p: p.e1(), lambda p: p.e1() + LAM * p.em()),
    "domain-confusion": (lambda p: p.e1() + p.e2(), lambda p: p.e1() + LAM * p.e3()),
    "domain-confusion-em": (
        lambda p: p.e1() + p.e2(),
        lambda p: p.e1() + LAM * (p.e3() + p.em()),
    ),
    "symnets-wo-target-task": (
        lambda p: p.e5() + p.e7(),
        lambda p: p.e8() + LAM * (p.e9() + p.e10()),
    ),
    "symnets-wo-entropy": (
        lambda p: p.e5() + p.e6() + p.e7(),
        lambda p: p.e8() + LAM * p.e9(),
    ),
    "symnets-wo-confusion": (
        lambda p: p.e5() + p.e6() + p.e7(),
        lambda p: p.e13() + LAM * p.e10(),
    ),
    "symnets-wo-category-confusion": (
        lambda p: p.e5() + p.e6() + p.e7(),
        lambda p: p.e12() + LAM * (p.e9() + p.e10()),
    ),
    "symnets": (
        lambda p: p.e5() + p.e6() + p.e7(),
        lambda p: p.e8() + LAM * (p.e9() + p.e10()),
    ),
}
LATER = {
    "symnets-balanced": (
        lambda p: p.e5() + p.e6() + p.e7(),
        lambda p: p.e8() + LAM * (p.e9() + p.e10() + BALANCE * p.balance()),
    ),
    "symnets-v2": (
        lambda p: p.e5() + p.e6() + p.e37(),
        lambda p: p.e8() + LAM * p.e36(),
    ),
    "symnets-v2-balanced": (
        lambda p: p.e5() + p.e6() + p.e37(),
        lambda p: p.e8() + LAM * (p.e36() + BALANCE * p.balance()),
    ),
}
V2 = {
    "source_task",
    "target_task",
    "category_discrimination",
    "category_confusion",
    "target_category_confusion",
}
# The terms by their names in the logs, which figures and TensorBoard are read by.
HEAD = {"source_task", "target_task", "domain_discrimination"}
TERMS = {
    "source-only": {"task"},
    "source-only-em": {"task", "entropy"},
    "domain-confusion": {"task", "discriminator", "confusion"},
    "domain-confusion-em": {"task", "discriminator", "confusion", "entropy"},
    "symnets-wo-target-task": {
        "source_task",
        "domain_discrimination",
        "category_confusion",
        "domain_confusion",
        "symmetric_entropy",
    },
    "symnets-wo-entropy": HEAD | {"category_confusion", "domain_confusion"},
    "symnets-wo-confusion": HEAD | {"mean_task", "symmetric_entropy"},
    "symnets-wo-category-confusion": HEAD
    | {"source_domain_confusion", "domain_confusion", "symmetric_entropy"},
    "symnets": HEAD | {"category_confusion", "domain_confusion", "symmetric_entropy"},
    "symnets-balanced": HEAD
    | {"category_confusion", "domain_confusion", "symmetric_entropy", "balance"},
    "symnets-v2": V2,
    "symnets-v2-balanced": V2 | {"balance"},
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
    return Network(extractor, method.head(F, K)).double()


def losses_of(method, network, x_s, y, x_t, **settings):
    """Both players' losses on a batch."""
    source, target = network(x_s, x_t if method.target else None)
    settings = Settings(**{"num_classes": K, "balance": BALANCE, "prior": UNIFORM} | settings)
    return losses(method, source, y, target, LAM, settings)


def test_the_nine_rows_of_table_4_are_there():
    assert METHODS.keys() == {*PAPER, *LATER}
    answers = {name for name in PAPER if METHODS[name].classifier == "C_s"}
    assert answers == {"symnets-wo-target-task"}
    assert {name for name in PAPER if not METHODS[name].target} == {"source-only"}


WEIGHT = torch.tensor([1.0, 0.6, 0.1], dtype=torch.float64)
SYMMETRIC = [name for name in [*PAPER, *LATER] if name.startswith("symnets")]


@pytest.mark.parametrize(
    ("name", "weight"),
    [*((name, None) for name in [*PAPER, *LATER]), *((name, WEIGHT) for name in SYMMETRIC)],
)
def test_each_player_gets_the_gradient_of_its_own_equations(name, weight, batch):
    method = METHODS[name]
    x_s, x_t, y = batch
    network = network_of(method)
    total, values = losses_of(method, network, x_s, y, x_t, partial=weight)
    total.backward()

    paper = Paper(network.head, network.extractor(x_s), network.extractor(x_t), y, weight)
    heads, extractor = (loss(paper) for loss in (PAPER | LATER)[name])
    torch.testing.assert_close(total.double(), heads + extractor)
    for loss, module in ((heads, network.head), (extractor, network.extractor)):
        expected = torch.autograd.grad(loss, [*module.parameters()], retain_graph=True)
        for p, gradient in zip(module.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, gradient)
    assert values.keys() == TERMS[name]


def test_the_symmetric_methods_are_those_that_take_weights():
    assert [name for name, method in METHODS.items() if method.symmetric] == SYMMETRIC


def test_the_six_terms_of_symnets_are_the_papers(batch):
    x_s, x_t, y = batch
    network = network_of(METHODS["symnets"])
    _, values = losses_of(METHODS["symnets"], network, x_s, y, x_t)
    paper = Paper(network.head, network.extractor(x_s), network.extractor(x_t), y)
    equations = (paper.e5, paper.e6, paper.e7, paper.e8, paper.e9, paper.e10)
    for name, equation in zip(symloss.SymNetLosses._fields, equations, strict=True):
        torch.testing.assert_close(values[name].detach(), equation().detach())


def test_categories_that_seem_absent_count_less_in_the_labelled_losses():
    prior = torch.tensor([0.9, 1 / 15, 1 / 30])  # 2.7, 0.2 and 0.1 of an equal share
    partial = torch.tensor([0.5, 1.0, 1.0])
    for given, expected in ((None, [1, 1, 0.5]), (partial, [0.5, 1, 0.5])):
        weight = Settings(3, BALANCE, prior, given).weight
        torch.testing.assert_close(weight, torch.tensor(expected).float())
    assert Settings(3, BALANCE, torch.tensor([0.6, 0.3, 0.1])).weight.tolist() == [1, 1, 1]


def test_the_balance_is_to_the_prior_that_is_given(batch):
    x_s, x_t, y = batch
    network, method = network_of(METHODS["symnets-balanced"]), METHODS["symnets-balanced"]
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    _, values = losses_of(method, network, x_s, y, x_t, prior=prior)
    paper = Paper(network.head, network.extractor(x_s), network.extractor(x_t), y)
    torch.testing.assert_close(values["balance"].detach(), BALANCE * paper.balance(prior).detach())


def test_the_discriminator_is_f_1024_1024_2():
    network = network_of(METHODS["domain-confusion"])
    shapes = [tuple(p.shape) for p in network.head.domain.parameters() if p.dim() == 2]
    assert shapes == [(1024, F), (1024, 1024), (2, 1024)]
