"""How scripts end, and names and words that an output's encoding lacks."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_image
from made_results import read_predictions

EXAMPLES = Path(__file__).parents[2] / "examples"
BYTES = os.fsdecode(b"caf\xe9")  # not UTF-8


def script(path: Path, *arguments: object, encoding: str = "utf-8") -> str:
    """Run a script to its end and return its output and errors, by bytes that need not be UTF-8."""
    paths = os.pathsep.join(map(str, (EXAMPLES, EXAMPLES.parent)))
    done = subprocess.run(
        [sys.executable, str(path), *map(str, arguments)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": encoding},
        check=False,
    )
    shown = (done.stdout + done.stderr).decode(encoding, "replace")
    assert done.returncode == 0, shown
    assert "Traceback" not in shown
    return shown


@pytest.mark.slow
def test_scripts_import_nothing_that_takes_seconds(tmp_path):
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    heavy = {"sklearn", "tensorboard", "torch._dynamo", "torchvision"}
    code = f"import sys, {', '.join(names)}; print({heavy} & {{*sys.modules}})"
    (tmp_path / "imports.py").write_text(code)
    assert names
    assert script(tmp_path / "imports.py").strip() == "set()"


@pytest.mark.slow
def test_the_digits_table_in_ascii(tmp_path):
    options = "--methods source-only --seeds 0 1 --epochs 1 --no-plots --out"
    shown = script(EXAMPLES / "train_digits.py", *options.split(), tmp_path, encoding="ascii")
    assert "\\xb1" in shown  # ±


@pytest.mark.slow
def test_names_of_another_system_from_training_to_report(tmp_path):
    source, target, runs = tmp_path / BYTES / "日本", tmp_path / "new", tmp_path / "runs"
    for i in range(8):
        write_image(source / ("Möbel→" if i % 2 else BYTES) / f"{i}{BYTES}.jpg", i % 2, i)
        write_image(target / f"{i}{BYTES}.jpg", i % 2, i + 10)
    options = "--dataset folders --backbone shufflenet_v2_x0_5 --weights none --max-steps 2"
    given = [*options.split(), "--source", source, "--target", target, "--out", runs, "--seeds", 0]
    given += ["--batch-size", 4, "--method", "symnets"]
    driver = Path(__file__).with_name("driver.py")
    assert "done in" in script(driver, *given, "--device", "cpu", encoding="ascii")
    (folder,) = (path.parent for path in runs.rglob("result.json"))
    predictions = read_predictions(folder / "predictions.csv")
    assert sorted(p.path for p in predictions) == sorted(target.iterdir())
    assert {p.category for p in predictions} <= {"Möbel→", r"caf\udce9"}
    with open(folder / "inputs.csv", encoding="utf-8", newline="") as file:
        assert len([*csv.DictReader(file)]) == 16
    script(EXAMPLES / "report.py", runs, encoding="cp1252")
    image = next(target.iterdir())
    shown = script(EXAMPLES / "predict.py", folder / "model.pt", image, encoding="ascii")
    assert "\\udce9.jpg" in shown


ENDLESS = """
import itertools, time
from office import console
def main():
    for i in itertools.count():
        print(i, flush=True)
        time.sleep(0.01)
console.run(main)
"""


def started() -> subprocess.Popen[bytes]:
    """An endless script that has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        cwd=EXAMPLES,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A background shell's processes ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == b"0\n"
    return process


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_job_schedulers_end_leave_no_traceback(number: signal.Signals) -> None:
    with started() as process:
        process.send_signal(number)
        assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 130


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_a_reader_that_has_enough_leaves_no_traceback() -> None:
    with started() as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


FAULTY = """
import warnings
from office import console
def main():
    warnings.warn("odd →")
    {fault}
console.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("raise console.UserError('no images in data')", "no images in data"),
        ("open('nowhere/file')", "[Errno 2] No such file or directory: 'nowhere/file'"),
    ],
)
def test_a_fault_of_files_or_data_is_one_line(fault: str, line: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FAULTY.format(fault=fault), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES), "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.stderr.splitlines() == ["warning: odd \\u2192", f"script.py: error: {line}"]
    assert done.returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("code", ["print('x')", "print('x' * 10**6)", "raise SystemExit(0)"])
def test_a_full_disk_behind_standard_output_is_one_line(code: str) -> None:
    program = (
        f"from office import console\ndef main():\n    print(1)\n    {code}\nconsole.run(main)"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=EXAMPLES, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("-c: error: ")
    assert line.endswith("No space left on device")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose processes share what they compile, which takes longer than to run it."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["extract_features", "train_features", "train_office", "predict", "report", "collect"]
)
def test_help_works_without_docstrings(name: str, compiled: dict[str, str]) -> None:
    paths = os.pathsep.join(map(str, (EXAMPLES, EXAMPLES.parent)))
    done = subprocess.run(
        [sys.executable, "-OO", str(EXAMPLES / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        env={**compiled, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name}.py")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows names are always UTF-8")
def test_names_are_the_same_under_every_locale(tmp_path: Path) -> None:
    """Under a locale of another encoding, a script starts again in UTF-8 mode."""
    (tmp_path / "Möbel").touch()
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom office import console\n"
        "console.run(lambda: print(ascii(os.listdir(sys.argv[1])), sys.stdout.encoding))"
    )
    shown = set()
    for settings in ({"PYTHONUTF8": "1"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}):
        environment = {**os.environ, "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(EXAMPLES)}
        environment.pop("PYTHONIOENCODING", None)
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path)],
            capture_output=True,
            env=environment | settings,
            check=True,
        )
        shown.add(done.stdout)
    names, encodings = zip(*(line.decode().rsplit(" ", 1) for line in shown), strict=True)
    assert len({*names}) == 1
    assert "'M\\xf6bel'" in names[0]
    assert len({*encodings}) == 2  # what is printed stays in the terminal's encoding
