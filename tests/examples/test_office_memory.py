"""The memory that is free, with /proc and /sys as files of a temporary folder."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from office.data import memory

GB = 10**9
UNLIMITED_V1 = 9223372036854771712


def written(root: Path, files: dict[str, object]) -> float:
    """Write files below ``root`` and return what is free by them."""
    for name, content in {"proc/meminfo": f"MemAvailable: {64 * 10**6} kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return memory.free_memory(torch.device("cpu"), root)


def v2(group: str, limit: object, used: int, files: int = 0, **more: object) -> dict[str, object]:
    folder = f"sys/fs/cgroup{group}".rstrip("/")
    stat = f"anon 1\ninactive_file {files}\nactive_file 5"
    named = {"memory.max": limit, "memory.current": used, "memory.stat": stat}
    return {f"{folder}/{name}": value for name, value in (named | more).items()}


def v1(group: str, limit: int, used: int, files: int = 0) -> dict[str, object]:
    folder = f"sys/fs/cgroup/memory{group}".rstrip("/")
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used,
        f"{folder}/memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {files}",
    }


def test_without_a_limit_it_is_what_the_machine_has(tmp_path):
    assert written(tmp_path, {}) == 64 * 1024 * 10**6
    of_root = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.stat": "inactive_file 9"}
    assert written(tmp_path, of_root) == 64 * 1024 * 10**6


def test_the_limit_counts_less_what_is_used_but_for_files_that_the_kernel_gives_back(tmp_path):
    group = {"proc/self/cgroup": "0::/box"}
    assert written(tmp_path, group | v2("/box", 8 * GB, 3 * GB, files=GB)) == 6 * GB


@pytest.mark.parametrize(("outer", "inner", "free"), [(4, 8, 3), (8, 4, 2), ("max", 4, 2)])
def test_of_nested_groups_the_tightest_counts(tmp_path, outer, inner, free):
    limits = [n if n == "max" else n * GB for n in (outer, inner)]
    job = v2("/slurm/job_1", limits[0], GB) | v2("/slurm/job_1/step_0", limits[1], 2 * GB)
    group = {"proc/self/cgroup": "0::/slurm/job_1/step_0/task", **v2("/slurm", "max", 3 * GB)}
    task = v2("/slurm/job_1/step_0/task", "max", GB)
    assert written(tmp_path, group | job | task) == free * GB


def test_memory_high_is_a_limit(tmp_path):
    group = v2("/user", "max", GB, **{"memory.high": 3 * GB})
    assert written(tmp_path, {"proc/self/cgroup": "0::/user", **group}) == 2 * GB


def test_in_a_container_the_root_is_the_group(tmp_path):
    for group in ("0::/", "0::/../../docker/abc", "0::/docker/abc"):
        assert written(tmp_path, {"proc/self/cgroup": group, **v2("", 2 * GB, GB)}) == GB


def test_version_1(tmp_path):
    lines = "12:cpu,cpuacct:/other\n5:memory:/slurm/job_2\n1:name=systemd:/x\n0::/"
    groups = v1("/slurm/job_2", UNLIMITED_V1, GB) | v1("/slurm", 5 * GB, 3 * GB, files=GB)
    assert written(tmp_path, {"proc/self/cgroup": lines, **groups}) == 3 * GB
    shared = lines.replace("5:memory:", "5:hugetlb,memory:").replace("/slurm/job_2", "/docker/a")
    root = v1("", 2 * GB, GB)
    assert written(tmp_path, {"proc/self/cgroup": shared, **root}) == GB


def test_more_used_than_allowed_is_nothing_free(tmp_path):
    assert written(tmp_path, {"proc/self/cgroup": "0::/", **v2("", GB, 2 * GB)}) == 0


def test_a_scheduler_may_limit_the_address_space():
    code = (
        "import sys; sys.path.insert(0, 'examples')\n"
        "import resource, torch\nfrom office.data import memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (10**11, 10**11))\n"
        "print(memory._address_space(memory.Path('/')))"
    )
    repository = Path(__file__).parents[2]
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, capture_output=True, text=True, check=True, cwd=repository)
    assert 0.5e11 < float(found.stdout) < 1e11
