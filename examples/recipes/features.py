"""Adapt features that you already have: DINOv2, CLIP, a ResNet, anything."""

import numpy as np

import symloss

# Toy data: five categories; in the target, each of them has moved. Yours goes here:
# labelled features of one domain, unlabelled ones of another.
rng = np.random.default_rng(0)
names = np.array(["bike", "bottle", "mug", "pen", "ruler"])
labels = np.arange(400) % 5
centres = rng.normal(size=(5, 16))
moved = centres + 1.5 * rng.normal(size=(5, 16))
features = centres[labels] + rng.normal(size=(400, 16))
target_features = moved[labels] + rng.normal(size=(400, 16))

# The three lines.
model = symloss.SymNetClassifier(random_state=0)
model.fit(features, names[labels], target_features)
predicted = model.predict(target_features)

print(model.diagnose(target_features))  # did it work? No target labels needed
print(f"target accuracy: {100 * (predicted == names[labels]).mean():.1f} %")
