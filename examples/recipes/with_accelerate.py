"""SymNets with Hugging Face Accelerate: `accelerate launch with_accelerate.py`."""

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import symloss

set_seed(0)

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
source_loader = DataLoader(TensorDataset(x_source, labels), 16, shuffle=True, drop_last=True)
target_loader = DataLoader(TensorDataset(x_target), 16, shuffle=True, drop_last=True)


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


accumulate = 2  # do not step early when one of two loaders ends
plugin = GradientAccumulationPlugin(num_steps=accumulate, sync_with_dataloader=False)
accelerator = Accelerator(gradient_accumulation_plugin=plugin)  # mixed_precision=...
backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU())
network = SymNet(backbone, symloss.SymmetricHead(64, num_classes=3))
groups = symloss.parameter_groups(network.backbone, network.head, lr=0.001)
optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=1e-4)
model, optimizer, source_loader, target_loader = accelerator.prepare(
    network, optimizer, source_loader, target_loader
)
epochs, steps_per_epoch = 20, min(len(source_loader), len(target_loader))
total = epochs * steps_per_epoch
scheduler = symloss.AnnealedLR(optimizer.optimizer, total // accumulate)  # not prepared

done = 0
for _ in range(epochs):
    for (x_s, y_s), (x_t,) in zip(source_loader, target_loader, strict=False):
        with accelerator.accumulate(model):
            source, target = model(x_s, x_t)
            losses = symloss.symnet_losses(source, y_s, target)
            lam = symloss.progressive_lambda(done / total)
            accelerator.backward(losses.total(lam))
            if accelerator.sync_gradients:  # the gradient is complete
                accelerator.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients and not accelerator.optimizer_step_was_skipped:
            scheduler.step()
        done += 1

network = accelerator.unwrap_model(model).eval()
with torch.inference_mode():
    features = network.backbone(x_target.to(accelerator.device))
    accuracy = (network.head.predict(features).cpu() == labels).float().mean()
accelerator.print(f"target accuracy: {100 * accuracy:.1f} %")
