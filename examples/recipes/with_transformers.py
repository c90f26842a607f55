"""SymNets with Hugging Face's Trainer, and with LoRA adapters (PEFT)."""

from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTModel,
    set_seed,
)

import symloss

set_seed(0)

# Toy data: three categories of images; the target is shifted, without labels. Yours goes here.
labels = torch.arange(192) % 3
centres = torch.randn(3, 3, 8, 8)
x_source = centres[labels] + 0.5 * torch.randn(192, 3, 8, 8)
x_target = centres[labels] + 0.5 * torch.randn(192, 3, 8, 8) + 0.3 * torch.randn(3, 1, 1)


class Pairs(Dataset[dict[str, Any]]):
    """A labelled source image and an unlabelled target image, drawn at random."""

    def __len__(self) -> int:
        """Return the size of the larger domain: one epoch."""
        return max(len(x_source), len(x_target))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one pair, under the names of the model's arguments."""
        i, j = index % len(x_source), int(torch.randint(len(x_target), ()))
        return {
            "pixel_values": x_source[i],
            "labels": labels[i],
            "target_pixel_values": x_target[j],
        }


class SymNet(nn.Module):
    """Backbone and head; one forward for both domains, or for images to predict."""

    accepts_loss_kwargs = False  # the loss is a batch mean, which the Trainer must divide

    def __init__(self, backbone: nn.Module, head: symloss.SymmetricHead) -> None:
        """Keep both."""
        super().__init__()
        self.backbone, self.head = backbone, head

    def features(self, pixel_values: Tensor) -> Tensor:
        """Return the class token."""
        states: Tensor = self.backbone(pixel_values).last_hidden_state
        return states[:, 0]

    def forward(self, pixel_values: Tensor, target_pixel_values: Tensor | None = None) -> Any:
        """Return routed logits of both domains; of one alone, the target classifier's logits."""
        features = self.features(pixel_values)
        if target_pixel_values is None:
            return {"logits": symloss.functional.split_logits(self.head(features))[1]}
        target = symloss.route(self.head, self.features(target_pixel_values))
        return symloss.route(self.head, features), target


class SymNetTrainer(Trainer):
    """The Trainer with the losses of SymNets."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return one optimizer in which the head learns ten times as fast."""
        if self.optimizer is None:
            network: Any = self.model
            groups = symloss.parameter_groups(
                network.backbone, network.head, self.args.learning_rate
            )
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the sum of both players' losses; in evaluation, the cross-entropy."""
        y_s = inputs.pop("labels")
        outputs = model(**inputs)
        if "target_pixel_values" not in inputs:
            loss = F.cross_entropy(outputs["logits"], y_s)
            return (loss, outputs) if return_outputs else loss
        source, target = outputs
        lam = symloss.progressive_lambda(self.state.global_step / self.state.max_steps)
        self.loss = symloss.symnet_losses(source, y_s, target).total(lam)
        return self.loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Check the first gradients, which reveal a frozen head and forgotten layers."""
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == 0:
            optimizer: Any = self.optimizer
            extractor, head = (group["params"] for group in optimizer.param_groups)
            symloss.check_wiring(self.loss, extractor, head)
        return loss


class Images(Dataset[dict[str, Any]]):
    """Target images alone, for evaluation; the labels are only for the toy's accuracy."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(x_target)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one image."""
        return {"pixel_values": x_target[index], "labels": labels[index]}


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    """Return the share of correct predictions, in percent."""
    logits: Any = evaluated.predictions
    return {"accuracy": 100 * float((logits.argmax(1) == evaluated.label_ids).mean())}


def new_model() -> SymNet:
    """Return your network: ViTModel.from_pretrained(NAME, add_pooling_layer=False)."""
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=8,
        patch_size=4,
    )
    backbone = ViTModel(config, add_pooling_layer=False)
    return SymNet(backbone, symloss.SymmetricHead(config.hidden_size, num_classes=3))


def train(model: nn.Module) -> float:
    """Train and return the target accuracy."""
    arguments = TrainingArguments(
        "trainer",
        num_train_epochs=20,
        learning_rate=1e-3,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        dataloader_drop_last=True,
        label_names=["labels"],  # otherwise evaluation ignores them
        report_to=[],
        save_strategy="no",
    )
    trainer = SymNetTrainer(
        model, arguments, train_dataset=Pairs(), eval_dataset=Images(), compute_metrics=accuracy
    )
    trainer.train()
    return trainer.evaluate()["eval_accuracy"]


print(f"all of the network, target accuracy: {train(new_model()):.1f} %")

# modules_to_save: LoRA freezes all layers that it does not adapt, and the head must learn.
lora = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], modules_to_save=["head"])
print(f"LoRA, target accuracy: {train(get_peft_model(new_model(), lora)):.1f} %")
