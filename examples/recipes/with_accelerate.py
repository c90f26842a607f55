"""SymNets with Hugging Face Accelerate: `accelerate launch with_accelerate.py`, or plain python."""

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import symloss

set_seed(0)

# Toy data: three categories; the target is shifted and has no labels. Put your loaders here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
source_loader = DataLoader(TensorDataset(x_source, labels), 16, shuffle=True, drop_last=True)
target_loader = DataLoader(x_target, 16, shuffle=True, drop_last=True)


class SymNet(nn.Module):
    """Backbone and head as one module, so that one forward takes both domains."""

    def __init__(self, backbone, head):
        """Keep both."""
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x_s, x_t):
        """Return the routed logits of both domains."""
        return self.head.route(self.backbone(x_s)), self.head.route(self.backbone(x_t))


accumulate = 2  # with two loaders, "the end of the loader" is no reason for a step
plugin = GradientAccumulationPlugin(num_steps=accumulate, sync_with_dataloader=False)
accelerator = Accelerator(gradient_accumulation_plugin=plugin)  # mixed_precision="bf16", ...
network = SymNet(nn.Sequential(nn.Linear(16, 64), nn.ReLU()), symloss.SymmetricHead(64, 3))
groups = symloss.parameter_groups(network.backbone, network.head, lr=0.001)
optimizer = torch.optim.SGD(groups, lr=0.001, momentum=0.9, nesterov=True, weight_decay=1e-4)
model, optimizer, source_loader, target_loader = accelerator.prepare(
    network, optimizer, source_loader, target_loader
)
epochs, steps_per_epoch = 20, min(len(source_loader), len(target_loader))  # of one process
total = epochs * steps_per_epoch
scheduler = symloss.AnnealedLR(optimizer.optimizer, total // accumulate)  # not prepared

done = 0
for _ in range(epochs):
    for (x_s, y_s), x_t in zip(source_loader, target_loader, strict=False):
        with accelerator.accumulate(model):
            source, target = model(x_s, x_t)
            losses = symloss.symnet_losses(source, y_s, target)
            accelerator.backward(losses.total(lam=symloss.progressive_lambda(done / total)))
            if accelerator.sync_gradients:  # the gradient is whole
                accelerator.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients and not accelerator.optimizer_step_was_skipped:
            scheduler.step()
        done += 1

network = accelerator.unwrap_model(model).eval()
with torch.inference_mode():
    predicted = network.head.predict(network.backbone(x_target.to(accelerator.device))).cpu()
accelerator.print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
