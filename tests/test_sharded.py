"""Routing under FSDP and tensor parallelism: two gloo processes on the CPU, started once."""

import os
import warnings

import pytest
import torch
from torch import nn

import symloss

fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(getattr(fsdp, "FSDPModule", None), "set_reshard_after_forward"),
        reason="torch has no fully_shard whose shards can be kept gathered",
    ),
]

# The parts given to fully_shard, in its order; "" is the whole model.
FORMS = {
    "root": [""],
    "backbone": ["extractor", ""],
    "layers of the backbone": ["extractor.0", "extractor.2", ""],
    "head": ["head", ""],
    "head and backbone": ["extractor", "head", ""],
    "a layer of the head": ["head.0", ""],
    "layers of the head": ["head.0", "head.2", "head", ""],
}
MLP = {"a layer of the head", "layers of the head"}
ROUTERS = ("head.route", "symloss.route", "mlp")
CASES = [
    (form, router) for form in FORMS for router in ROUTERS if router == "mlp" or form not in MLP
]
LABELS = torch.arange(12) % 3


class Both(nn.Module):
    def __init__(self, router):
        super().__init__()
        torch.manual_seed(0)
        self.extractor = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6))
        mlp = router == "mlp"
        self.head = (
            nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
            if mlp
            else symloss.SymmetricHead(6, 3)
        )
        self.router = router
        self.double()

    def forward(self, *domains):
        return [self.route(self.extractor(x)) for x in domains]

    def route(self, features):
        if self.router == "head.route":
            return self.head.route(features)
        return symloss.route(self.head, features)


def domains(step=0):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(2, 12, 4, generator=generator, dtype=torch.float64)
    return x[0], x[1] + 1


def train(model, part, steps=3):
    """Return the gradients of the first step and the weights after the last."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    gradients = {}
    for step in range(steps):
        optimizer.zero_grad()
        source, target = model(*(x[part] for x in domains(step)))
        symloss.symnet_losses(source, LABELS[part], target).total(0.5).backward()
        gradients = gradients or {n: whole(p.grad) for n, p in model.named_parameters()}
        optimizer.step()
    return gradients, {n: whole(p.detach()) for n, p in model.named_parameters()}


def whole(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone()


def message(call):
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return "no error"


def work(rank, folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2
    )
    mesh = init_device_mesh("cpu", (2,))
    part = slice(6 * rank, 6 * rank + 6)

    def sharded(router, names):
        model = Both(router)
        for name in names:
            fsdp.fully_shard(model.get_submodule(name), mesh=mesh)
        return model

    trained = {case: train(sharded(case[1], FORMS[case[0]]), part) for case in CASES}
    model = Both("head.route")
    plan = ColwiseParallel(output_layouts=Replicate())
    parallelize_module(model.head, mesh, plan)
    # Every process sees all samples.
    trained["tensor parallel", "head.route"] = train(model, slice(None))

    features = torch.randn(5, 6, dtype=torch.float64)
    linear, mlp = (sharded(router, [""]).head for router in ("head.route", "mlp"))
    messages = {
        "head.route": message(lambda: linear.route(features)),
        "symloss.route": message(lambda: symloss.route(linear, features)),
        "symloss.route of an MLP": message(lambda: symloss.route(mlp, features)),
        "predict": message(lambda: linear.predict(features)),
        "call": message(lambda: linear(features)),
        "classifier": message(linear.classifier),
    }
    model = sharded("head.route", [""])
    model.unshard()
    predicted = model.head.predict(features), model.head.classifier()(features).argmax(1)
    messages["predictions after unshard"] = "equal" if torch.equal(*predicted) else "differ"
    wrapped = Both("symloss.route")
    wrapped.head = fsdp.FullyShardedDataParallel(wrapped.head, device_id=torch.device("cpu"))
    messages["FSDP1"] = message(lambda: wrapped(*domains()))
    if rank == 0:
        torch.save((trained, messages), f"{folder}/results.pt")
    torch.distributed.barrier()
    os._exit(0)  # torch now and then aborts while its threads end, which is not under test


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.parametrize(("form", "router"), [*CASES, ("tensor parallel", "head.route")])
def test_a_sharded_model_trains_as_one_process_does(results, form, router):
    gradients, weights = results[0][form, router]
    want_gradients, want_weights = train(Both(router), slice(None))
    torch.testing.assert_close(gradients, want_gradients, rtol=0, atol=1e-14)
    torch.testing.assert_close(weights, want_weights, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "call", ["head.route", "symloss.route", "symloss.route of an MLP", "predict", "call"]
)
def test_a_sharded_head_outside_forward_says_where_it_belongs(results, call):
    assert results[1][call].startswith("the head's weight is sharded (a DTensor) and the features")
    assert "inside the forward of the module that fully_shard was given" in results[1][call]


def test_a_classifier_is_not_copied_from_a_shard(results):
    assert "must copy a whole weight, got a sharded one (a DTensor)" in results[1]["classifier"]
    assert results[1]["predictions after unshard"] == "equal"


def test_a_head_in_fsdp_of_its_own_is_refused(results):
    assert results[1]["FSDP1"].startswith("head must not be wrapped by FSDP on its own, got Fully")
    assert "leave the head to the wrapper of the whole model" in results[1]["FSDP1"]
