"""Choose settings without target labels, and see what the choice costs."""

import numpy as np
import torch
from sklearn.model_selection import ParameterGrid

import symloss

# Toy data: eight categories; in the target, each of them has moved. Yours goes here.
rng = np.random.default_rng(2)
labels = np.arange(500) % 8
centres = rng.normal(size=(8, 16))
moved = centres + 1.5 * rng.normal(size=(8, 16))
features = centres[labels] + 0.7 * rng.normal(size=(500, 16))
target_features = moved[labels] + 0.7 * rng.normal(size=(500, 16))
trained, held_out = np.arange(500) < 400, np.arange(500) >= 400

grid = {
    "objective": ["symnets", "symnets-v2"],
    "balance": [0.0, 1.0],
    "preprocessing": ["l2", "standardise"],
}
runs = []
print("score  source   target  setting")
for params in ParameterGrid(grid):
    model = symloss.SymNetClassifier(epochs=40, random_state=0, **params)
    model.fit(features[trained], labels[trained], target_features)
    with torch.inference_mode():
        bottleneck = torch.from_numpy(model.transform(target_features))
        logits = model.head_.classifier("target")(bottleneck)
    score = symloss.scores.information_maximization(logits).item()
    source = 100 * model.score(features[held_out], labels[held_out])  # what a search would take
    target = 100 * model.score(target_features, labels)  # only because this is toy data
    runs.append((score, source, target))
    print(f"{score:5.2f} {source:5.1f} % {target:6.1f} %  {params}")

_, _, picked = max(runs)
best = max(target for *_, target in runs)
by_source = max(source for _, source, _ in runs)
ties = [target for _, source, target in runs if source == by_source]
print(f"best source accuracy: {len(ties)} settings, with {min(ties):.1f} to {max(ties):.1f} %")
print(f"best setting: {best:.1f} %")
print(f"best score, target accuracy: {picked:.1f} %")
