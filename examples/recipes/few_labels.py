"""A few target labels, three per category, in your own loop."""

import torch
from torch import nn

import symloss
from symloss import functional

# Toy data: five categories; in the target, each of them has moved far. Yours goes here.
torch.manual_seed(2)
labels = torch.arange(400) % 5
centres = 2 * torch.randn(5, 16)
moved = centres + 2.75 * torch.randn(5, 16)
x_source = centres[labels] + torch.randn(400, 16)
x_target = moved[labels] + torch.randn(400, 16)
x_known, y_known = x_target[:15], labels[:15]  # the target's labelled images


def train(known: bool) -> float:
    """Return the accuracy on the other target images, in %."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU())
    head = symloss.SymmetricHead(64, num_classes=5)
    step = symloss.TwoOptimizerStep(
        extractor=torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=0.9),
        head=torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9),
    )
    total = 300
    for i in range(total):
        index_s, index_t = torch.randint(400, (2, 32))
        source = head.route(backbone(x_source[index_s]))
        # One batch: a few images alone would have batch-norm statistics of their own
        x_t = torch.cat([x_target[index_t], x_known])
        of_target = head.route(backbone(x_t))
        target, labelled = (
            symloss.RoutedLogits(*(logits[rows] for logits in of_target))
            for rows in (slice(32), slice(32, None))
        )
        lam = symloss.progressive_lambda(i / total)
        loss = symloss.symnet_losses(source, labels[index_s], target).total(lam)
        if known:
            loss = loss + functional.source_task(labelled.head, y_known)
            loss = loss + functional.target_task(labelled.head, y_known)
            loss = loss + functional.category_confusion(labelled.extractor, y_known)
        step(loss)
    with torch.inference_mode():
        predicted = head.predict(backbone.eval()(x_target[15:]))
    return 100 * (predicted == labels[15:]).float().mean().item()


print(f"without target labels: {train(known=False):.1f} %")
print(f"with three per category, target accuracy: {train(known=True):.1f} %")
