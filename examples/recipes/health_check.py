"""Is the adapted model healthy? Look at its target predictions, without labels."""

import torch
from torch import nn

import symloss

# Toy data: five categories; in the target, each of them has moved.
torch.manual_seed(2)
names = ["bike", "bottle", "mug", "pen", "ruler"]
labels = torch.arange(400) % 5
centres = 2 * torch.randn(5, 16)
moved = centres + 1.75 * torch.randn(5, 16)
x_source = centres[labels] + torch.randn(400, 16)
x_target = moved[labels] + torch.randn(400, 16)


def train(balance: float) -> tuple[nn.Module, symloss.SymmetricHead]:
    """Return backbone and head, trained with this weight of the category balance."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU())
    head = symloss.SymmetricHead(64, num_classes=5)
    step = symloss.TwoOptimizerStep(
        extractor=torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=0.9),
        head=torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9),
    )
    total = 300
    for i in range(total):
        index_s, index_t = torch.randint(400, (2, 32))
        source = head.route(backbone(x_source[index_s]))
        target = head.route(backbone(x_target[index_t]))
        lam = symloss.progressive_lambda(i / total)
        loss = symloss.symnet_losses(source, labels[index_s], target).total(lam)
        # Computed on target.extractor: the backbone learns from it, the head does not.
        imbalance = symloss.functional.category_balance(target.extractor)
        step(loss + balance * lam * imbalance)
    return backbone.eval(), head


for balance in (0.0, 3.0):
    backbone, head = train(balance)
    with torch.inference_mode():
        logits = head(backbone(x_target))  # of the whole target, in evaluation mode
    v_s, v_t = symloss.functional.split_logits(logits)
    expected = labels.bincount() / len(labels)  # the source's shares
    diagnosis = symloss.diagnostics.diagnose(v_t, names, expected, other_logits=v_s)
    print(f"balance {balance}:")
    print(diagnosis.describe(remedy="a larger balance"))
    score = symloss.scores.information_maximization(v_t)
    print(f"information maximization {score:.2f}")
    # Only because this is toy data:
    correct = (head.predict(backbone(x_target)) == labels).float().mean()
    print(f"target accuracy: {100 * correct:.1f} %\n")
