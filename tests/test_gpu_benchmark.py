"""benchmarks/gpu.py runs without a GPU, keeps what is done, survives parts that fail or hang, and keeps its time."""

from __future__ import annotations

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
    # The last part is the same command, with other numbers of steps.
    names = [part.name for part in gpu.PARTS if not part.name.startswith("dac run")]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--small", "--minutes", "12", "--json", str(file)]
    subprocess.run([*command, "--parts", *names], check=True, capture_output=True, timeout=800)
    parts = json.loads(file.read_text())["parts"]
    assert list(parts) == names
    assert {name: part.get("error") for name, part in parts.items() if part["status"] != "done"} == {}
    for row in parts["exact"]["results"]:
        worst = max(value["relative"] for value in row.values() if isinstance(value, dict))
        assert worst < (1e-5 if row["dtype"] == "float32" else 5e-2)
    for row in parts["steps, explicit"]["results"]:
        assert set(row["device"]) == set(row["host"]) == {"data", "forward", "losses", "backward", "update"}
    assert parts["real"]["results"][-1]["test views"] == 2
    assert {"dac-baseline", "dac-expert", "dac-distill", "dac-finetune"} <= set(
        parts["experts and student"]["results"][0]["methods"]
    )


@pytest.mark.parametrize(("count", "devices"), [("one", "cpu"), ("two", "cpu,cpu")])
def test_the_demo_runs_one_stage_at_a_time_or_two(
    count: str, devices: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[list[str]] = []

    def carry_out(command: list[str], check: bool) -> None:
        ran.append([str(word) for word in command])
        report = Path(ran[0][ran[0].index("--output-dir") + 1]) / "scene" / "report"
        report.mkdir(parents=True)
        (report / "results.json").write_text('{"methods": {"dac-baseline": {"steps": 4, "per_view": {}}}}')

    monkeypatch.setattr(gpu.subprocess, "run", carry_out)
    told: list[dict[str, Any]] = []
    (part,) = [part for part in gpu.PARTS if part.name == f"dac run, {count} at a time"]
    part.ask(gpu.Task("cpu", True, None, tmp_path, "fork", 0.0), told.append)
    assert ran[0][3:5] == ["run", "--data"] and ran[0][-3:] == ["--devices", devices, "--no-video"]
    assert (tmp_path / "flags.toml").read_text() == "[all]\nmax-num-iterations = 4\n"
    assert [(row["devices"], row["methods"]) for row in told] == [(devices, {"dac-baseline": {"steps": 4}})]


def test_parts_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="There is no part exactness. Parts: exact; "):
        gpu.main(gpu.Options(json=tmp_path / "gpu.json", parts=("exactness",)))
    content = gpu.main(gpu.Options(small=True, json=tmp_path / "gpu.json", parts=("tiny-cuda-nn",)))
    assert list(content["parts"]) == ["tiny-cuda-nn"]
