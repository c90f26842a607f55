"""Stop a run at any time and start it again: it resumes from its last checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import symloss

CHECKPOINT = Path("checkpoint.pt")
torch.manual_seed(0)

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
source_loader = DataLoader(TensorDataset(x_source, labels), 32, shuffle=True, drop_last=True)
target_loader = DataLoader(TensorDataset(x_target), 32, shuffle=True, drop_last=True)

backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU())
head = symloss.SymmetricHead(64, num_classes=3)
extractor_optimizer = torch.optim.SGD(backbone.parameters(), lr=0.001, momentum=0.9)
head_optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
epochs, steps_per_epoch = 20, min(len(source_loader), len(target_loader))
total = epochs * steps_per_epoch

step = symloss.TwoOptimizerStep(extractor_optimizer, head_optimizer)
extractor_schedule = symloss.AnnealedLR(extractor_optimizer, total)
head_schedule = symloss.AnnealedLR(head_optimizer, total)

# Everything that changes during training has a state_dict.
parts: dict[str, Any] = {
    "backbone": backbone,
    "head": head,
    "step": step,
    "extractor_schedule": extractor_schedule,
    "head_schedule": head_schedule,
}
first_epoch = 0
if CHECKPOINT.exists():
    state = torch.load(CHECKPOINT, weights_only=True)  # map_location=device, on a GPU
    for name, part in parts.items():
        part.load_state_dict(state[name])
    first_epoch = state["epoch"]
    print(f"resuming after {first_epoch} epochs")

for epoch in range(first_epoch, epochs):
    backbone.train()
    batches = zip(source_loader, target_loader, strict=False)
    for i, ((x_s, y_s), (x_t,)) in enumerate(batches):
        source, target = head.route(backbone(x_s)), head.route(backbone(x_t))
        losses = symloss.symnet_losses(source, y_s, target)
        progress = (epoch * steps_per_epoch + i) / total  # so that λ resumes, too
        step(losses.total(lam=symloss.progressive_lambda(progress)))
        extractor_schedule.step()
        head_schedule.step()
    state = {name: part.state_dict() for name, part in parts.items()}
    state["epoch"] = epoch + 1
    torch.save(state, CHECKPOINT.with_suffix(".new"))
    CHECKPOINT.with_suffix(".new").replace(CHECKPOINT)  # never half a file

backbone.eval()
with torch.inference_mode():
    accuracy = (head.predict(backbone(x_target)) == labels).float().mean()
print(f"target accuracy: {100 * accuracy:.1f} %")
