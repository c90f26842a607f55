"""SymNets as a LightningModule, with automatic optimisation."""

from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import symloss

lightning.seed_everything(0)

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
source_loader = DataLoader(TensorDataset(x_source, labels), 32, shuffle=True, drop_last=True)
target_loader = DataLoader(TensorDataset(x_target), 32, shuffle=True, drop_last=True)


class SymNet(lightning.LightningModule):
    """Backbone and symmetric head; one optimizer, one loss."""

    def __init__(
        self, backbone: nn.Module, num_features: int, num_classes: int, lr: float = 0.001
    ) -> None:
        """Save the numbers, but not the backbone, as hyperparameters in the checkpoint."""
        super().__init__()
        self.save_hyperparameters(ignore=["backbone"])
        self.backbone = backbone
        self.head = symloss.SymmetricHead(num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the target classifier's logits, to predict with."""
        return symloss.functional.split_logits(self.head(self.backbone(x)))[1]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the sum of both players' losses."""
        (x_s, y_s), (x_t,) = batch["source"], batch["target"]
        source = self.head.route(self.backbone(x_s))
        target = self.head.route(self.backbone(x_t))
        losses = symloss.symnet_losses(source, y_s, target)
        self.log_dict(losses._asdict(), batch_size=len(y_s))
        progress = self.global_step / self.trainer.estimated_stepping_batches
        return losses.total(lam=symloss.progressive_lambda(progress))

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Check the first gradients, which reveal a frozen backbone and forgotten layers."""
        super().backward(loss, *args, **kwargs)
        if self.global_step == 0:
            symloss.check_wiring(loss, self.backbone, self.head)

    def configure_optimizers(self) -> Any:
        """Return one optimizer in which the head learns ten times as fast."""
        groups = symloss.parameter_groups(self.backbone, self.head, self.hparams["lr"])
        optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = symloss.AnnealedLR(optimizer, total)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def new_backbone() -> nn.Module:
    """Return your network, without its last layer."""
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU())


loaders = CombinedLoader(
    {"source": source_loader, "target": target_loader}, mode="max_size_cycle"
)  # as long as the larger one
trainer = lightning.Trainer(max_epochs=20, gradient_clip_val=10.0, log_every_n_steps=10)
trainer.fit(SymNet(new_backbone(), num_features=64, num_classes=3), loaders)
trainer.save_checkpoint("symnet.ckpt")  # fit(..., ckpt_path="symnet.ckpt") resumes

model = SymNet.load_from_checkpoint("symnet.ckpt", backbone=new_backbone()).eval()
with torch.inference_mode():
    predicted = model(x_target.to(model.device)).argmax(1).cpu()
accuracy = (predicted == labels).float().mean()
print(f"target accuracy: {100 * accuracy:.1f} %")
