"""The files of a finished run: what was written is read again, and broken files are named."""

import csv
import dataclasses
import errno
import io
import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_results import made_features, made_result
from office import files
from office.console import UserError
from office.results import outputs

GONE = object()


@pytest.mark.parametrize(
    "result",
    [
        made_result(),
        made_result(accuracy=None, confusion=None, per_category={"bike": None}, commit="85de387"),
        made_result(classifier="C_s", images=[9, 9, 123], machine={"device": "cpu", "workers": 0}),
    ],
)
def test_a_result_is_read_as_it_was_written(tmp_path, result):
    outputs.write_result(tmp_path, result)
    assert outputs.read_result(tmp_path / "result.json") == result


def test_a_result_without_one_of_its_keys_is_refused(tmp_path):
    path = tmp_path / "result.json"
    whole = vars(made_result())
    for name in whole.keys() - outputs.ADDED.keys():
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(UserError, match=f"{path}.*: no '{name}'$"):
            outputs.read_result(path)


def test_a_result_from_before_the_label_free_numbers_is_read(tmp_path):
    outputs.write_result(tmp_path, made_result())
    path = tmp_path / "result.json"
    content = json.loads(path.read_text())
    for name in ("predicted", "expected", "agreement"):
        del content[name]
    path.write_text(json.dumps(content))
    without = made_result(predicted={}, expected={}, agreement=None)
    assert outputs.read_result(path) == without


@pytest.mark.parametrize("content", [b"", b'{"dataset": "off', b"[]", b"3", b"{}", b"\xff\xfe"])
def test_a_file_that_is_no_result_is_refused(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        outputs.read_result(path)
    path.unlink()
    with pytest.raises(UserError, match=str(path)):
        outputs.read_result(path)


def test_the_worst_category_has_the_smallest_recall():
    recalls = {"bike": 50.0, "mouse": None, "mug": 40.0, "pen": float("nan")}
    assert made_result(per_category=recalls).worst_category == ("mug", 40.0)
    assert made_result(per_category={"bike": None}).worst_category is None


@pytest.mark.parametrize("logits", [None, np.float32([[0.5] * 6] * 12)])
def test_features_are_read_as_they_were_written(tmp_path, logits):
    written = dataclasses.replace(made_features(), logits=logits)
    outputs.write_features(tmp_path, written)
    read = outputs.read_features(tmp_path / "features.npz")
    for field in dataclasses.fields(outputs.Features):
        left, right = getattr(written, field.name), getattr(read, field.name)
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"features": GONE}, "'features'"),
        ({"domain": GONE}, "'domain'"),
        ({"label": GONE}, "'label'"),
        ({"label": np.array([None] * 30)}, "cannot read"),  # pickled
    ],
)
def test_broken_features_are_refused(tmp_path, changes, why):
    path = tmp_path / "features.npz"
    arrays = {**vars(made_features()), "logits": np.zeros((12, 6), np.float32), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not GONE})
    with pytest.raises(UserError, match=why) as error:
        outputs.read_features(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "features.npz"
    outputs.write_features(tmp_path, made_features())
    whole = path.read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    flipped = bytearray(whole)
    flipped[200] ^= 255
    one = (tmp_path / "one.npy").read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], b"features", one, bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"cannot read {path}"):
            outputs.read_features(path)
    path.unlink()
    with pytest.raises(UserError, match=f"cannot read {path}"):
        outputs.read_features(path)


def test_a_file_is_replaced_at_once(tmp_path):
    path = tmp_path / "log.jsonl"
    files.write(path, b"old")
    with open(path, "rb") as old:  # as if it were read while the new one is written
        files.write(path, b"new")
        assert old.read() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/no/a: .*no file before"):
        files.write(tmp_path / "no" / "a", b"new")


def test_many_jobs_write_one_file(tmp_path):
    path = tmp_path / "log.jsonl"
    contents = [bytes([65 + i]) * 5000 for i in range(8)]

    def job(content):
        for _ in range(20):
            files.write(path, content)
            files.try_writing(tmp_path)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(job, contents)] == [None] * 8
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0")
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".0.tmp").symlink_to(victim)
    with pytest.raises(UserError, match=r"cannot write .*File exists"):
        files.write(tmp_path / "a", b"new")
    (tmp_path / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic"), files.locked(tmp_path):
        pass
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "made").exists()


def test_a_name_as_long_as_names_can_be(tmp_path):
    for length in (200, 254, 255):
        files.write(tmp_path / ("a" * length), b"content")
        assert (tmp_path / ("a" * length)).read_bytes() == b"content"
    with pytest.raises(UserError, match="File name too long; there was no file before"):
        files.write(tmp_path / ("a" * 256), b"content")


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are POSIX's")
def test_outputs_go_where_they_are_pointed(tmp_path, capfdbinary):
    (tmp_path / "other").mkdir()
    real = tmp_path / "other" / "real.csv"
    for before in (True, False):  # a link to a file, and to one that is yet to be
        real.write_bytes(b"old") if before else real.unlink()
        link = tmp_path / "link.csv"
        link.unlink(missing_ok=True)
        link.symlink_to(real)
        files.check(link)
        files.put(link, b"new")
        assert link.is_symlink()
        assert real.read_bytes() == b"new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        files.check(pipe)
        files.put(pipe, b"through")
        assert read.result() == b"through"
    assert pipe.is_fifo()
    files.put(Path("/dev/null"), b"gone")
    assert Path("/dev/null").is_char_device()
    for out in ("-", "/dev/stdout"):
        files.check(Path(out))
        files.put(Path(out), b"shown\n")
    assert capfdbinary.readouterr().out == b"shown\n" * 2
    with pytest.raises(UserError, match="cannot write /dev/full: No space left on device"):
        files.put(Path("/dev/full"), b"lost")


def test_what_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    told = "it must be a file in a folder that exists and is writable"
    for path in (tmp_path, tmp_path / "folder", tmp_path / "none" / "a.csv"):
        with pytest.raises(UserError, match=f"cannot write {path}: {told}"):
            files.check(path)
    files.check(tmp_path / "a.csv")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError, match=f"a.csv: {told}"):
        files.check(tmp_path / "a.csv")


def test_a_failed_write_leaves_the_file_and_nothing_else(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; the previous file is intact"):
        files.put(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_second_job_waits_for_the_first(tmp_path, capsys):
    order = []

    def second():
        with files.locked(tmp_path):
            order.append("second")

    with ThreadPoolExecutor() as pool:
        with files.locked(tmp_path):
            waiting = pool.submit(second)
            while "waiting for another job" not in capsys.readouterr().out:
                assert not waiting.done()
            with pytest.raises(UserError, match="another job is writing to"):
                files.locked(tmp_path, wait=False).__enter__()
            order.append("first")
        waiting.result()
    assert order == ["first", "second"]


def test_no_cell_is_a_formula():
    rows = [["=1+1", "+cmd", "-x", "@a", "\tb", "'=c", "'quoted", "mug"], ["-0.5", -1.5, "+3e-05"]]
    cells = [*csv.reader(io.StringIO(files.table(rows).decode()))]
    assert cells[0] == ["'=1+1", "'+cmd", "'-x", "'@a", "'\tb", "''=c", "'quoted", "mug"]
    assert cells[1] == ["-0.5", "-1.5", "+3e-05"]
