"""A timm backbone: a vision transformer (ViT), ConvNeXt, ResNet or any other."""

import copy
from typing import Any

import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.utils import NativeScaler
from torch import Tensor

import symloss

torch.manual_seed(0)

# With pretrained=True, name the weights in full: "...224.augreg_in21k_ft_in1k".
backbone = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0)
config = resolve_model_data_config(backbone)  # input size, mean and std
train_transform = create_transform(**config, is_training=True)
test_transform = create_transform(**config, is_training=False)

# The width of the features; for some networks, backbone.num_features is wrong.
backbone.eval()
with torch.inference_mode():
    num_features = backbone(torch.zeros(1, *config["input_size"])).shape[1]
head = symloss.SymmetricHead(num_features, num_classes=3)

groups = symloss.parameter_groups(backbone, head, lr=0.001)  # the head learns at 0.01
optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=1e-4)

# Toy batches. Yours: a dataset with train_transform, for example torchvision's ImageFolder.
y_s = torch.arange(6) % 3
x_s, x_t = torch.randn(2, 6, *config["input_size"])
total = 3
backbone.train()
for i in range(total):
    source, target = head.route(backbone(x_s)), head.route(backbone(x_t))
    losses = symloss.symnet_losses(source, y_s, target)
    loss = losses.total(lam=symloss.progressive_lambda(i / total))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

backbone.eval()
with torch.inference_mode():
    print(f"{num_features} features; predicted:", head.predict(backbone(x_t)))

# For layer decay, put the head inside the model: where timm has it, pretrained_cfg["classifier"].
model: Any = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=3)
model.head = symloss.SymmetricHead(model.get_classifier().in_features, num_classes=3)
decayed = create_optimizer_v2(model, "adamw", lr=0.001, weight_decay=0.05, layer_decay=0.75)
scaler = NativeScaler("cpu")  # your device


def features(x: Tensor) -> Tensor:
    """Return the head's input, with the model's own pooling and dropout."""
    pooled: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)
    return pooled


source, target = model.head.route(features(x_s)), model.head.route(features(x_t))
loss = symloss.symnet_losses(source, y_s, target).total(lam=0.5)
scaler(loss, decayed, clip_grad=1.0, parameters=model.parameters())
decayed.zero_grad()

evaluated = copy.deepcopy(model).eval()
evaluated.head = model.head.classifier("target")  # K logits, as timm evaluates
with torch.inference_mode():
    print("predicted with layer decay:", evaluated(x_t).argmax(1))
