"""Two processes train one model, as nerfstudio does on two GPUs; here on a CPU, by gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dac_nerfstudio.runs.layout import checkpoints
from dac_nerfstudio.runs.record import Stage

STEPS = 6


def train(rank: int, folder: Path, data: Path, steps: int, load: str) -> None:
    """One of the two processes; leaves what it drew and what it learned in a file."""
    import nerfstudio.pipelines.base_pipeline as base_pipeline
    import torch
    import torch.distributed as dist
    from nerfstudio.engine.trainer import Trainer
    from nerfstudio.scripts import train as script
    from tiny_training import small_config

    from dac_nerfstudio import methods

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / f'meet-{steps}'}", rank=rank, world_size=2)

    # nerfstudio names the GPU of each process, which a CPU refuses.
    class OnCpu(base_pipeline.DDP):
        def __init__(self, model: Any, device_ids: Any, **settings: Any) -> None:
            super().__init__(model, **settings)

    base_pipeline.DDP = OnCpu
    barrier = dist.barrier
    dist.barrier = lambda *_, **__: barrier()

    resumed = {"load_dir": Path(load)} if load else {}
    config = small_config(
        methods.baseline, data, folder / "outputs", max_num_iterations=steps, steps_per_save=1000, **resumed
    )
    seen: dict[str, Any] = {"drawn": []}
    step = Trainer.train_iteration

    def watched(self: Any, number: int) -> Any:
        manager = self.pipeline.datamanager
        draw = manager.next_train

        def drawn(at: int) -> Any:
            rays, batch = draw(at)
            seen["drawn"].append(batch["image"].double().sum().item())
            return rays, batch

        manager.next_train = drawn
        output = step(self, number)
        manager.next_train = draw
        seen["weights"] = [float(p.detach().double().abs().sum()) for p in self.pipeline.model.parameters()]
        return output

    Trainer.train_iteration = watched  # type: ignore[method-assign]
    script.train_loop(local_rank=rank, world_size=2, config=config, global_rank=rank)
    (folder / f"{steps}-{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


def together(folder: Path, data: Path, steps: int, load: str = "") -> list[dict[str, Any]]:
    """Both processes, to their end; what each of them left."""
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    code = "import sys; from pathlib import Path; import test_several_devices as t; a = sys.argv; "
    code += "t.train(int(a[1]), Path(a[2]), Path(a[3]), int(a[4]), a[5])"
    words = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(
            [*words, str(rank), str(folder), str(data), str(steps), load],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    return [json.loads((folder / f"{steps}-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_draw_apart_learn_as_one_save_once_and_resume(demo: Path, tmp_path: Path) -> None:
    first, second = together(tmp_path, demo, STEPS)
    assert len(first["drawn"]) == STEPS and not set(first["drawn"]) & set(second["drawn"])
    assert first["weights"] == pytest.approx(second["weights"], rel=1e-6)
    (run,) = (tmp_path / "outputs" / demo.name / "dac-baseline").iterdir()
    assert [path.name for path in checkpoints(run)] == [f"step-{STEPS - 1:09d}.ckpt"]
    assert Stage.load(run).complete
    # A longer run goes on from there.
    moved = run.rename(tmp_path / "begun")
    first, second = together(tmp_path, demo, STEPS + 4, str(moved / "nerfstudio_models"))
    assert len(first["drawn"]) == 4 and first["weights"] == pytest.approx(second["weights"], rel=1e-6)
