"""Small domains, for the page's search; its best score is that of the target."""

import pytest
import torch

pytest.importorskip("sklearn", minversion="1.6")

torch.manual_seed(0)
labels = (torch.arange(200) % 3).numpy()
centres = 2 * torch.randn(3, 8).numpy()
features = centres[labels] + torch.randn(200, 8).numpy()
target_features = centres[labels] + torch.randn(200, 8).numpy() + 0.5


def check(names):
    search = names["search"]
    score = names["label_free"](search.best_estimator_, None, None)
    assert search.best_score_ == pytest.approx(score)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
