"""The files that a trained run leaves, from outputs made by hand."""

import dataclasses
from pathlib import Path

import pytest
import torch
from made_results import read_predictions
from office.console import UserError
from office.models import backbones, saved
from office.results.outputs import write_run
from small_runs import RUNTIME, features, made_run, made_task, result
from torch import nn

JOINT = torch.eye(6)[[0, 1, 2, 0, 1, 2, 0, 1, 2]] + torch.eye(6)[[3, 4, 5, 4, 5, 3, 3, 4, 5]]
HISTORY = [
    {"epoch": 1, "target_accuracy/C_t": 10.0, "target_accuracy/C_s": 20.0, "source_task": 1.5},
    {
        **{"epoch": 2, "target_accuracy/C_t": 200 / 3, "target_accuracy/C_s": 100.0},
        **{"source_accuracy/C_s": 90.0, "source_task": 0.5},
    },
]


def finish(out, run, scale=1.0, **shares):
    extractor = backbones.build_extractor(run.recipe.backbone, "none", None)
    source, target = torch.ones(9, 4), scale * torch.ones(9, 4)
    runtime = dataclasses.replace(RUNTIME, out=out)
    run.folder(out).mkdir(parents=True, exist_ok=True)
    classifier = nn.Linear(extractor.num_features, 3)
    outputs = (source, target), (JOINT, JOINT), HISTORY, 12.5
    written = write_run(run, runtime, extractor, classifier, *outputs, **shares)
    assert result(run.folder(out)) == written
    return run.folder(out)


def test_a_result_has_what_its_logits_and_history_say(tmp_path):
    written = result(finish(tmp_path, made_run()))
    assert written.accuracy == 200 / 3
    assert written.final == {
        "target_accuracy/C_t": 200 / 3,
        "target_accuracy/C_s": 100.0,
        "source_accuracy/C_s": 90.0,
    }
    assert written.epochs == HISTORY
    assert written.confusion == [[2, 1, 0], [0, 2, 1], [1, 0, 2]]
    assert written.per_category == pytest.approx(dict.fromkeys(written.categories, 200 / 3))
    assert written.agreement == pytest.approx(2 / 3)
    assert written.seconds == 12.5
    assert written.versions.keys() >= {"python", "torch", "torchvision", "symloss"}


def test_the_classifier_is_that_of_the_method(tmp_path):
    written = result(finish(tmp_path, made_run(method="symnets-wo-target-task")))
    assert (written.classifier, written.accuracy) == ("C_s", 100.0)
    assert written.confusion == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]


@pytest.mark.parametrize(("scale", "dtype"), [(1.0, "float16"), (1e6, "float32")])
def test_features_are_half_precision_unless_a_value_is_too_large(tmp_path, scale, dtype):
    saved = features(finish(tmp_path, made_run(), scale))
    assert saved.features.dtype == dtype
    assert saved.domain.tolist() == [0] * 9 + [1] * 9
    assert saved.label.tolist() == [0, 1, 2] * 6


def test_without_target_labels_there_are_predictions(tmp_path):
    task = made_task()
    paths = [Path(f"=1+{i}\udce9.jpg") for i in range(9)]  # formulas, and not UTF-8
    target = dataclasses.replace(task.target, paths=paths, labels=None)
    folder = finish(tmp_path, made_run(dataclasses.replace(task, target=target)))
    assert "\n'=1+0\\udce9.jpg,bike,0.5" in (folder / "predictions.csv").read_text("utf-8")
    predictions = read_predictions(folder / "predictions.csv")
    assert [p.path for p in predictions] == target.paths
    assert [p.category for p in predictions[2:5]] == ["mug", "mouse", "mug"]
    page = (folder / "predictions.html").read_text("utf-8")
    assert page.count("<figure>") == 9
    page = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "<b>bike</b> 57.6 %<br>or mouse 21.2 %<br><small>=1+0\\udce9.jpg</small>" in page
    assert f"<h1>9 images of {target.name}, predicted by symnets</h1>" in page
    assert (features(folder).label[9:] == -1).all()
    assert result(folder).confusion is None


def test_the_result_is_written_last(tmp_path, monkeypatch):
    def full(*_):
        raise UserError("full")

    monkeypatch.setattr(saved, "write_model", full)
    with pytest.raises(UserError, match="full"):
        finish(tmp_path, made_run())
    assert not [*tmp_path.rglob("result.json")]
