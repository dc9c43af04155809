"""benchmarks/gpu.py runs without a GPU, keeps what is done, survives parts that fail or hang, and keeps its time."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
gpu = importlib.import_module("gpu")


def hangs(task: Any, tell: Any) -> None:
    tell({"found": 1})
    time.sleep(600)


def fails(task: Any, tell: Any) -> None:
    tell({"found": 2})
    raise ValueError("out of luck")


def dies(task: Any, tell: Any) -> None:
    # As a driver does, past Python's own streams.
    os.write(1, b"Illegal memory access.\n")
    os._exit(7)


def leaves_a_child(task: Any, tell: Any) -> None:
    tell({"pid": subprocess.Popen(["sleep", "600"]).pid})
    time.sleep(600)


def counts(task: Any, tell: Any) -> None:
    tell({"found": 3})


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def carried_out(monkeypatch: pytest.MonkeyPatch, file: Path, *parts: Any, minutes: float = 5) -> dict[str, Any]:
    monkeypatch.setattr(gpu, "PARTS", parts)
    gpu.main(gpu.Options(minutes=minutes, json=file, small=True))
    return json.loads(file.read_text())["parts"]


def test_a_part_that_fails_dies_or_hangs_costs_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {"hangs": hangs, "fails": fails, "dies": dies, "counts": counts}
    parts = carried_out(monkeypatch, tmp_path / "gpu.json", *(gpu.Part(n, a, most=3) for n, a in asked.items()))
    assert [parts[name]["status"] for name in asked] == ["stopped when its time was up", "failed", "failed", "done"]
    assert [parts[name]["results"] for name in asked] == [[{"found": 1}], [{"found": 2}], [], [{"found": 3}]]
    assert parts["fails"]["error"][-1] == "ValueError: out of luck"
    assert parts["dies"]["error"] == ["It ended with code 7.", "Illegal memory access."]


def test_a_part_leaves_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = carried_out(monkeypatch, tmp_path / "gpu.json", gpu.Part("parent", leaves_a_child, most=3))
    assert not alive(parts["parent"]["results"][0]["pid"])


def test_what_is_done_is_kept_and_the_rest_done_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    both = gpu.Part("first", counts), gpu.Part("second", fails)
    carried_out(monkeypatch, file, *both)
    parts = carried_out(monkeypatch, file, gpu.Part("first", fails), gpu.Part("second", counts))
    assert [part["status"] for part in parts.values()] == ["done", "done"]

    content = json.loads(file.read_text())
    content["settings"]["machine"]["device"] = "another"
    file.write_text(json.dumps(content))
    parts = carried_out(monkeypatch, file, gpu.Part("first", fails))
    assert parts["first"]["status"] == "failed"


def test_parts_without_time_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    start = time.monotonic()
    parts = carried_out(
        monkeypatch, tmp_path / "gpu.json", gpu.Part("long", hangs), gpu.Part("late", counts), minutes=0.15
    )
    assert parts["long"]["status"] == "stopped when its time was up"
    assert parts["late"]["status"] == "skipped"
    assert time.monotonic() - start < 25


def test_every_part_answers_without_a_gpu(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    names = [part.name for part in gpu.PARTS if part.name != "paper"]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--small", "--minutes", "12", "--json", str(file)]
    subprocess.run([*command, "--parts", *names], check=True, capture_output=True, timeout=800)
    parts = json.loads(file.read_text())["parts"]
    assert list(parts) == names
    assert {name: part.get("error") for name, part in parts.items() if part["status"] != "done"} == {}
    for row in parts["exact"]["results"]:
        worst = max(value["relative"] for value in row.values() if isinstance(value, dict))
        assert worst < (1e-5 if row["dtype"] == "float32" else 5e-2)
    rows = parts["graphs"]["results"]
    assert [(row["stage"], row["steps by"]) for row in rows] == [
        ("baseline", "again"), ("baseline", "resumed"), ("distill", "again"), ("distill", "resumed")
    ]  # fmt: skip
    assert all(row["weights"]["absolute"] == 0 for row in rows), "on a CPU"
    assert [row["stage"] for row in parts["steps, explicit"]["results"]] == list(gpu.STAGES)
    assert parts["kernels, distill"]["results"][0]["kernel"] == "all"


FINISHED = {"methods": {"dac-baseline": {"steps": 4, "scores": {"psnr": 10.0}, "per_view": {}}}}


def test_the_papers_recipe_goes_on_between_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Here a command that leaves its results once a file is there."""
    report, file = tmp_path / "kept" / "outputs" / "scene" / "report" / "results.json", tmp_path / "go on"
    wait = f"while not pathlib.Path({str(file)!r}).exists(): time.sleep(0.1)"
    leave = f"p = pathlib.Path({str(report)!r}); p.parent.mkdir(parents=True); p.write_text({json.dumps(FINISHED)!r})"
    monkeypatch.setattr(gpu, "DAC", (sys.executable, "-c", f"import pathlib, time\n{wait}\n{leave}"))
    options = gpu.Options(json=tmp_path / "gpu.json", keep=tmp_path / "kept", small=True)

    def measure(seconds: int) -> Any:
        monkeypatch.setattr(gpu, "PARTS", (gpu.Part("paper", gpu.paper, least=0, most=seconds),))
        return gpu.main(options)["parts"]["paper"]

    for seconds in (5, 30, 120):  # to begin takes as long as the machine is busy
        assert measure(seconds)["status"] == "stopped when its time was up"
        if (tmp_path / "kept" / "started.json").exists():
            break
    file.touch()
    paper = measure(600)
    assert paper["status"] == "done"
    assert paper["results"][0] == {"method": "dac-baseline", "steps": 4, "seconds": None, "psnr": 10.0}
    assert 0 <= paper["results"][1]["seconds"]
    assert (tmp_path / "runs" / "scene" / "report" / "results.json").exists(), "beside the file of results"


def test_what_was_found_is_written_into_the_pages(tmp_path: Path) -> None:
    for name in ("speed.md", "results.md"):
        (tmp_path / name).write_text("# A page\n")
    times = {"median": 3.14159, "min": 3.0, "max": 3.3}
    parts = {"steps, explicit": {"results": [{"stage": "baseline", "ms": times}]}, "late": {"results": []}}
    content = {"machine": {"device": "A GPU"}, "parts": {**parts, "paper": {"results": [{"method": "dac-baseline"}]}}}
    for _ in range(2):
        gpu.write_pages(content, tmp_path)
    about = f"# A page\n\n{gpu.BEGIN}\nMeasured on A GPU by `benchmarks/gpu.py`.\n\n###"
    table = "| stage | ms |\n| --- | --- |\n| baseline | 3.14 (3–3.3) |"
    assert (tmp_path / "speed.md").read_text() == f"{about} steps, explicit\n\n{table}\n{gpu.END}\n"
    table = "| method |\n| --- |\n| dac-baseline |"
    assert (tmp_path / "results.md").read_text() == f"{about} The paper's recipe\n\n{table}\n{gpu.END}\n"


def test_parts_may_be_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no part exactness. Parts: exact; "):
        gpu.main(gpu.Options(json=tmp_path / "gpu.json", parts=("exactness",)))
    content = gpu.main(gpu.Options(small=True, json=tmp_path / "gpu.json", parts=("steps, tiny-cuda-nn",)))
    assert list(content["parts"]) == ["steps, tiny-cuda-nn"]
