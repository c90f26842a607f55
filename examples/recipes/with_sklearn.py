"""A scikit-learn pipeline that transforms the target too."""

import numpy as np
import sklearn
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import symloss

# Toy data: five categories, columns in different units; in the target, each category has
# moved. Yours goes here.
rng = np.random.default_rng(0)
names = np.array(["bike", "bottle", "mug", "pen", "ruler"])
labels = np.arange(400) % 5
centres = rng.normal(size=(5, 16))
moved = centres + 1.5 * rng.normal(size=(5, 16))
units = 10.0 ** rng.integers(-3, 4, size=16)
features = units * (50 + centres[labels] + rng.normal(size=(400, 16)))
target_features = units * (50 + moved[labels] + rng.normal(size=(400, 16)))

sklearn.set_config(enable_metadata_routing=True)  # scikit-learn 1.6 or later
pipeline = make_pipeline(
    StandardScaler(),
    symloss.SymNetClassifier(random_state=0),
    transform_input=["target_features"],
)
pipeline.fit(features, names[labels], target_features=target_features)
predicted = pipeline.predict(target_features)

print(f"target accuracy: {100 * (predicted == names[labels]).mean():.1f} %")
