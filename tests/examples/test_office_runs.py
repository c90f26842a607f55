"""What a run is, and what of it is on the disk: nothing, a checkpoint, or a result."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from made_results import made_result
from office import files
from office.console import UserError
from office.data.images import Preprocessing
from office.options import Recipe, Runtime
from office.results import outputs
from office.training.preparation import to_train
from small_runs import RUNTIME, made_run, made_task

CONTENT = {"network": {"weight": torch.zeros(2)}, "history": [{"epoch": 1}], "seconds": 1.0}
TWO_EPOCHS = CONTENT | {"history": [{"epoch": 1}, {"epoch": 2}]}


@pytest.fixture
def runtime(tmp_path):
    return dataclasses.replace(RUNTIME, out=tmp_path)


@pytest.fixture
def resuming(runtime):
    return dataclasses.replace(runtime, resume=True)


@pytest.fixture
def run(runtime):
    """A run whose folder is there."""
    run = made_run()
    run.folder(runtime.out).mkdir(parents=True)
    return run


def finish(run, out):
    """Write the result of a run as the run itself does."""
    result = made_result(
        run.task.name,
        run.method,
        run.seed,
        recipe=run.recipe.settings(),
        images=run.identity["images"],
    )
    outputs.write_result(run.folder(out), result)


def other(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Preprocessing):
        return dataclasses.replace(value, crop=value.crop - 1)
    if isinstance(value, str):
        return f"{value}-2"
    return 2 * value if value else 7


def test_a_run_is_called_by_benchmark_task_method_and_seed(tmp_path):
    run = made_run()
    assert run.title == "office31 A2W symnets seed 0"
    assert run.folder(tmp_path) == tmp_path / "office31" / "A2W" / "symnets" / "seed0"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_the_identity_changes_with_each_field_of_the_recipe(name):
    run = made_run(method="symnets-balanced")  # which has them all
    changed = made_run(method="symnets-balanced", **{name: other(getattr(run.recipe, name))})
    assert run.identity == made_run(method="symnets-balanced").identity
    assert run.identity != changed.identity


def test_settings_of_other_methods_are_no_part_of_a_run():
    run = made_run(balance=5.0, prior="source")
    assert run.identity == made_run().identity
    assert run.settings.keys() == run.recipe.settings().keys() - {"balance", "prior"}
    run = made_run(method="domain-confusion", partial=True)
    assert run.identity == made_run(method="domain-confusion").identity
    for method in ("symnets", "symnets-v2", "symnets-wo-entropy"):
        assert made_run(method=method, partial=True).identity != made_run(method=method).identity


SHARES = (("bike", 0.5), ("mouse", 0.3), ("mug", 0.2))


def test_a_prior_that_does_not_fit_is_refused_before_anything_is_trained(runtime):
    runs = [made_run(), made_run(method="symnets-v2-balanced", prior=SHARES[:2])]
    assert to_train(runs[:1], runtime) == runs[:1]
    with pytest.raises(UserError, match="--prior has no share for mug"):
        to_train(runs, runtime)


@pytest.mark.filterwarnings("error")
def test_shares_that_are_not_the_targets_are_warned_of_where_it_lacks_categories(runtime):
    task = made_task()
    few = dataclasses.replace(task.target, labels=[0] * 9)
    lacking, blind = (
        dataclasses.replace(task, target=dataclasses.replace(few, labels=labels))
        for labels in (few.labels, None)
    )
    assert (task.lacking, lacking.lacking, blind.lacking) == ([], ["mouse", "mug"], [])
    told = (
        "webcam lacks mouse, mug, but symnets-balanced pulls the predictions towards all 3 "
        "categories, which lowers accuracy here; use --prior estimate, or give the shares with "
        "--prior FILE"
    )
    with pytest.warns(UserWarning, match="lacks") as caught:
        to_train([made_run(lacking, "symnets-balanced", prior="source", batch_size=6)], runtime)
    assert [str(warning.message) for warning in caught] == [told]
    uniform = {"partial": True, "prior": "uniform", "batch_size": 6}
    with pytest.warns(UserWarning, match="webcam may lack categories, but symnets-v2-balanced"):
        to_train([made_run(blind, "symnets-v2-balanced", **uniform)], runtime)
    for run in (
        made_run(task, "symnets-balanced", prior="uniform", batch_size=6),
        made_run(lacking, "symnets-balanced", partial=True, batch_size=6),
        made_run(lacking, "symnets", partial=True),
        made_run(lacking, "symnets-balanced", partial=True, prior=SHARES, batch_size=6),
    ):
        assert to_train([run], runtime) == [run]


@pytest.mark.filterwarnings("error")
def test_balance_in_small_batches_is_warned_of(runtime):
    with pytest.warns(UserWarning, match="--batch-size 5 is less than twice the 3 categories"):
        to_train([made_run(method="symnets-balanced", batch_size=5)], runtime)
    for run in (made_run(batch_size=5), made_run(method="symnets-balanced", batch_size=6)):
        assert to_train([run], runtime) == [run]


@pytest.mark.parametrize("name", ["task", "method", "seed", "categories", "images"])
def test_the_identity_changes_with_task_method_seed_and_images(name):
    run = made_run()
    changes = {
        "task": {"task": dataclasses.replace(run.task, name="W2A")},
        "method": {"method": "symnets-v2"},  # which has the same settings
        "seed": {"seed": 1},
        "categories": {"task": dataclasses.replace(run.task, categories=["bike", "mug", "pen"])},
        "images": {"task": made_task(10)},
    }
    changed = dataclasses.replace(run, **changes[name])
    differ = [key for key, value in run.identity.items() if changed.identity[key] != value]
    assert differ == [name]


def test_a_file_of_weights_may_lie_elsewhere_and_unused_epochs_do_not_count():
    moved = [made_run(weights=f"{folder}/net.pt").identity for folder in ("a", "b")]
    assert moved[0] == moved[1]
    steps = [made_run(max_steps=3, epochs=epochs).identity for epochs in (1, 2)]
    assert steps[0] == steps[1]


def test_a_checkpoint_needs_resume_and_a_result_does_not(run, runtime, resuming):
    assert not run.is_finished(runtime)
    run.save_checkpoint(runtime.out, CONTENT)
    assert not run.is_finished(resuming)
    with pytest.raises(UserError, match=r"checkpoint\.pt holds finished epochs .*--resume"):
        run.is_finished(runtime)
    finish(run, runtime.out)
    assert run.is_finished(runtime)
    assert run.load_checkpoint(resuming) is None


RUNTIMES = {"device": torch.device("meta"), "workers": 3, "cache": "off"}


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_run_goes_on_and_is_finished_on_any_machine(run, resuming, name):
    assert {field.name for field in dataclasses.fields(Runtime)} == {*RUNTIMES, "out", "resume"}
    elsewhere = dataclasses.replace(resuming, **{name: RUNTIMES[name]})
    run.save_checkpoint(resuming.out, CONTENT)
    assert run.load_checkpoint(elsewhere)
    finish(run, resuming.out)
    assert run.is_finished(elsewhere)


def test_a_checkpoint_is_read_as_it_was_written(run, resuming):
    assert run.load_checkpoint(resuming) is None
    run.save_checkpoint(resuming.out, TWO_EPOCHS)
    read = run.load_checkpoint(resuming)
    assert torch.equal(read["network"]["weight"], torch.zeros(2))
    assert (read["history"], read["seconds"]) == (TWO_EPOCHS["history"], 1.0)


def test_killed_while_it_is_written_the_previous_checkpoint_is_left(run, resuming, monkeypatch):
    assert run.checkpoint_left(resuming.out) == "no epoch was finished, so there is no checkpoint"
    run.save_checkpoint(resuming.out, CONTENT)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save_checkpoint(resuming.out, TWO_EPOCHS)
    assert len(run.load_checkpoint(resuming)["history"]) == 1
    assert "continue with --resume" in run.checkpoint_left(resuming.out)
    assert [path.name for path in run.folder(resuming.out).iterdir()] == ["checkpoint.pt"]


def test_results_and_checkpoints_of_other_runs_are_refused(run, resuming):
    changed = made_run(lr=0.02)
    folder = run.folder(resuming.out)
    run.save_checkpoint(resuming.out, CONTENT)
    for refused in (changed.is_finished, changed.load_checkpoint):
        with pytest.raises(UserError) as error:
            refused(resuming)
        assert f"{folder / 'checkpoint.pt'} belongs to another run (lr 0.01 there, 0.02 here)" in (
            str(error.value)
        )
    finish(run, resuming.out)
    with pytest.raises(UserError, match=r"result\.json belongs to another run \(lr 0\.01"):
        changed.is_finished(resuming)


def test_a_checkpoint_in_the_folder_of_another_method_is_refused(run, resuming):
    run.save_checkpoint(resuming.out, CONTENT)
    changed = made_run(method="domain-confusion")
    run.folder(resuming.out).parent.rename(changed.folder(resuming.out).parent)
    with pytest.raises(UserError, match="method symnets there, domain-confusion here"):
        changed.is_finished(resuming)


def test_files_that_are_no_checkpoints_are_refused(run, resuming):
    run.save_checkpoint(resuming.out, CONTENT)
    path = run.folder(resuming.out) / "checkpoint.pt"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"something else"):
        path.write_bytes(content)
        for refused in (run.is_finished, lambda runtime: run.load_checkpoint(runtime)):
            with pytest.raises(UserError, match=f"cannot read {path}"):
                refused(resuming)
    files.save(path, {"weight": torch.zeros(1)})
    for refused in (run.is_finished, lambda runtime: run.load_checkpoint(runtime)):
        with pytest.raises(UserError, match=f"{path} was not written by train_office.py"):
            refused(resuming)


def test_files_that_are_older_than_a_part_of_the_preprocessing_had_its_default(run, resuming):
    older = run.recipe.settings()
    for name in ("interpolation", "squash"):
        del older["preprocessing"][name]
    told = {"seed": run.seed, "recipe": older, "images": run.identity["images"]}
    result = made_result(run.task.name, run.method, **told)
    outputs.write_result(run.folder(resuming.out), result)
    assert run.is_finished(resuming)
    squashed = dataclasses.replace(run.recipe.preprocessing, squash=True)
    with pytest.raises(UserError, match=r"preprocessing .*'squash': False.* there, .*True.* here"):
        made_run(preprocessing=squashed).is_finished(resuming)


def test_files_that_are_older_than_a_setting_had_its_default(run, resuming):
    result = made_result(
        recipe={key: v for key, v in run.recipe.settings().items() if key != "compile"},
        images=run.identity["images"],
    )
    outputs.write_result(run.folder(resuming.out), result)
    assert run.is_finished(resuming)
    with pytest.raises(UserError, match="compile False there, True here"):
        made_run(compile=True).is_finished(resuming)


def test_runs_that_are_finished_are_left_out_and_all_are_looked_at_first(run, resuming, runtime):
    finish(run, resuming.out)
    runs = [run, made_run(method="source-only"), dataclasses.replace(run, seed=1)]
    assert to_train(runs, resuming) == runs[1:]
    runs[2].folder(runtime.out).mkdir()
    runs[2].save_checkpoint(runtime.out, CONTENT)
    with pytest.raises(UserError, match="--resume"):
        to_train(runs, runtime)


def test_a_domain_smaller_than_a_batch_is_refused_where_it_is_trained_on(runtime):
    task = made_task()
    small = dataclasses.replace(task.target, paths=task.target.paths[:3])
    task = dataclasses.replace(task, target=small)
    with pytest.raises(UserError, match=r"webcam has 3 images, fewer than one batch of .* 4"):
        to_train([made_run(task)], runtime)
    runs = [made_run(task, method="source-only")]
    assert to_train(runs, runtime) == runs
    with pytest.raises(UserError, match=r"webcam has 3 images, .* 10; use --batch-size 3 or less"):
        to_train([made_run(task, batch_size=10)], runtime)


def test_a_run_that_another_job_trains_is_waited_for_and_not_trained_again(run, runtime, capsys):
    def second():
        with run.alone(runtime) as finished:
            return finished

    with ThreadPoolExecutor() as pool:
        with run.alone(runtime) as finished:
            assert not finished
            waiting = pool.submit(second)
            while "waiting for another job, which is writing to" not in capsys.readouterr().out:
                assert not waiting.done()
            run.save_checkpoint(runtime.out, CONTENT)  # which would need --resume
            assert to_train([run], runtime) == [run]
            finish(run, runtime.out)
        assert waiting.result()
