"""DDP, or FSDP2 with --fsdp: `torchrun --nproc_per_node 2 several_gpus.py`, on CPU too."""

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import symloss

if "LOCAL_RANK" not in os.environ:
    raise SystemExit("Start this script with: torchrun --nproc_per_node 2 several_gpus.py")
gpu = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
device = f"cuda:{os.environ['LOCAL_RANK']}" if gpu else "cpu"
dist.init_process_group("nccl" if gpu else "gloo")
torch.manual_seed(0)

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
datasets = TensorDataset(x_source, labels), TensorDataset(x_target)
samplers: list[DistributedSampler[tuple[Tensor, ...]]] = [
    DistributedSampler(dataset) for dataset in datasets
]
source_loader, target_loader = (
    DataLoader(dataset, 16, sampler=sampler, drop_last=True)  # 16 per process
    for dataset, sampler in zip(datasets, samplers, strict=True)
)


class SymNet(nn.Module):
    """Backbone and head as one module, which takes both domains in one forward."""

    def __init__(self, backbone: nn.Module, head: symloss.SymmetricHead) -> None:
        """Keep both."""
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(
        self, x_s: Tensor, x_t: Tensor
    ) -> tuple[symloss.RoutedLogits, symloss.RoutedLogits]:
        """Return the routed logits of both domains."""
        return self.head.route(self.backbone(x_s)), self.head.route(self.backbone(x_t))


backbone = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU())
network = SymNet(backbone, symloss.SymmetricHead(64, num_classes=3)).to(device)
fsdp = "--fsdp" in sys.argv
model: Any
if fsdp:  # each process keeps a part of every parameter; the optimizers come after it
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cuda" if gpu else "cpu", (dist.get_world_size(),))
    model = fully_shard(network, mesh=mesh)
else:
    model = DistributedDataParallel(network, [device] if gpu else None)
step = symloss.TwoOptimizerStep(
    extractor=torch.optim.SGD(network.backbone.parameters(), lr=0.001, momentum=0.9),
    head=torch.optim.SGD(network.head.parameters(), lr=0.01, momentum=0.9),
)
epochs, steps_per_epoch = 20, min(len(source_loader), len(target_loader))
total = epochs * steps_per_epoch
for epoch in range(epochs):
    for sampler in samplers:
        sampler.set_epoch(epoch)
    batches = zip(source_loader, target_loader, strict=False)
    for i, ((x_s, y_s), (x_t,)) in enumerate(batches, start=epoch * steps_per_epoch):
        source, target = model(x_s.to(device), x_t.to(device))  # not network(...)
        losses = symloss.symnet_losses(source, y_s.to(device), target)
        step(losses.total(lam=symloss.progressive_lambda(i / total)))

network.eval()
if fsdp:
    model.unshard()  # in every process, to use the modules outside forward
if dist.get_rank() == 0:
    with torch.inference_mode():
        predicted = network.head.predict(network.backbone(x_target.to(device))).cpu()
    print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
dist.destroy_process_group()
