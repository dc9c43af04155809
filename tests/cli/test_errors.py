"""An error that users can correct is a message that says what was found and what to type: no traceback.

Which runs can teach is tested in tests/training/test_experts.py.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import STEPS, TINY, Finished, Shell

COMMON = ("--data", "demo", "--groups", "2", "--max-num-iterations", str(STEPS), *TINY)
SCENE_DIR = Path("outputs", "demo")


@pytest.fixture(scope="session")
def answers(shell: Shell, background: ThreadPoolExecutor) -> Callable[[str], Finished]:
    """Starts real commands that go wrong (but for the last), in a folder of their own; gives the answer of one."""
    folder = shell.folder / "errors"
    folder.mkdir()
    there = Shell(folder)
    shutil.copytree(shell.folder / "demo", folder / "demo")
    shutil.copytree(shell.folder / "demo", folder / "no-validation")
    (folder / "no-validation" / "transforms_val.json").unlink()
    shutil.rmtree(folder / "no-validation" / "val")
    (folder / "holiday").mkdir()
    (folder / "holiday" / "notes.txt").touch()
    (folder / "empty").mkdir()
    few = ("--max-num-iterations", "2")
    commands = {
        "no data": ("ns-train", "dac-baseline", *TINY, "--data", "nowhere"),
        "no scene": ("ns-train", "dac-baseline", *TINY, "--data", "holiday"),
        "no such group": ("ns-train", "dac-expert", *COMMON, "--group", "9"),
        "no validation views": ("ns-train", "dac-baseline", *TINY, *few, "--data", "no-validation"),
        "run on no scene": ("dac", "run", "--data", "holiday", "--preset", "quick"),
        "seed beyond all": ("dac", "run", "--data", "demo", "--preset", "quick", "--seed", str(2**70)),
        "split into 0": ("dac", "split", "--data", "demo", "--groups", "0"),
        "split no scene": ("dac", "split", "--data", "holiday"),
        "report on nothing": ("dac", "report", "empty"),
    }
    futures: dict[str, Future[Finished]] = {
        name: background.submit(there, *command, succeed=False) for name, command in commands.items()
    }
    return lambda name: futures[name].result()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no data", "There is no data at nowhere. Name a scene's folder: --data PATH"),
        ("no scene", "holiday holds notes.txt; expected a folder with transforms_train.json"),
        ("no such group", "divided into 2 groups and there is no group 9. Add --group K, K from 1 to 2."),
        ("run on no scene", "holiday holds notes.txt; expected a folder with transforms_train.json"),
        ("seed beyond all", f"Error: --seed is {2**70}; expected a whole number from 0 to 4294967295."),
        ("split into 0", "groups is 0; expected an integer from 1 up."),
        ("split no scene", "holiday holds notes.txt; expected a folder with transforms_train.json"),
        ("report on nothing", "empty holds no runs. Make some: dac run --data …"),
    ],
)
def test_command_says_what_is_wrong(name: str, message: str, answers: Callable[[str], Finished]) -> None:
    answer = answers(name)
    assert answer.code == 1, answer.output
    assert message in answer.output
    assert "Traceback" not in answer.output


@pytest.mark.parametrize("name", ["no data", "no scene", "no such group"])
def test_ns_train_says_what_is_wrong_before_its_configuration(name: str, answers: Callable[[str], Finished]) -> None:
    output = answers(name).output
    assert "TrainerConfig(" not in output
    assert len(output.splitlines()) < 12, output


def test_missing_validation_views_are_no_error(answers: Callable[[str], Finished]) -> None:
    answer = answers("no validation views")
    assert answer.code == 0, answer.output
    assert "No validation views" in answer.output


@pytest.fixture(scope="session")
def with_experts(trainings: Mapping[str, Path], relocated: Callable[..., Shell]) -> Callable[[], Path]:
    """Makes a folder with the scene and its experts, for a test to spoil."""

    def make() -> Path:
        for group in (1, 2):
            assert trainings[f"dac-expert {group}"].exists()
        return relocated("dac-expert").folder

    return make


@pytest.fixture
def spoilt(with_experts: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scene, experts and no student; the current folder."""
    folder = with_experts()
    monkeypatch.chdir(folder)
    return folder


def expert(group: int) -> Path:
    return SCENE_DIR / "dac-expert" / f"group-{group}" / "run"


def refused(method: str, *flags: str) -> str:
    """The message with which ns-train ends for these flags, before training."""
    from dac_nerfstudio.launch.commands import parse

    config = parse((method, *COMMON, *flags))
    config.machine.device_type = "cpu"
    with pytest.raises(SystemExit) as ended:
        config.save_config()
    assert not list(Path("outputs").rglob("dac-distill*")), "nothing is left behind"
    # A text as the code of the exit is printed, and the exit status is 1.
    assert isinstance(ended.value.code, str)
    return ended.value.code.strip()


ONE = str(expert(1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "dac-baseline --groups 99 --experiment-name many",
            "99 groups for 16 views; choose a number of groups from 1 to 16.",
        ),
        (
            f"dac-distill --experts demo {ONE}",
            "demo is not a run folder: neither it nor the two folders above hold a stage.json.",
        ),
        (
            "dac-finetune",
            "No finished dac-distill in outputs/demo to start from. Make it: ns-train dac-distill --data …, or name "
            "one: --student FOLDER",
        ),
        (f"dac-finetune --student {ONE}", f"{ONE} holds a dac-expert; expected a dac-distill or dac-finetune."),
        ("dac-baseline blender-data --alpha-color red", "end the command with blender-data --alpha-color None"),
    ],
)
def test_flags_that_cannot_be_trained_with(words: str, message: str, spoilt: Path) -> None:
    assert message in refused(*words.split())


def test_fine_tuning_another_model(spoilt: Path, trainings: Mapping[str, Path]) -> None:
    student = str(trainings["dac-distill"])
    message = refused("dac-finetune", "--student", student, "--pipeline.model.grid-feature-dim", "4")
    assert message == (
        f"The student in {student} has grid_feature_dim 8, this dac-finetune 4. Give both the same "
        "--pipeline.model.grid-feature-dim."
    )


def test_partition_of_other_views(spoilt: Path) -> None:
    path = Path("demo", "transforms_train.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "frames": content["frames"][1:]}))
    message = refused("dac-baseline")
    assert "outputs/demo/partition.json was made from other views than those of the data" in message
    assert "the data lacks train/r_0.png" in message and "dac split" in message
