"""A finished run, opened again from its record and its checkpoint.

nerfstudio's own way is to load ``config.yml``, which runs whatever Python the file names. The folders that a run is
scored in may be somebody else's, so nothing in them is executed: the registered method is taken, the settings of
``stage.json`` are put into it one by one, and the checkpoint is read as tensors and plain numbers.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional, get_args, get_type_hints

from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import read_config
from dac_nerfstudio.runs.layout import CONFIG, PARTITION, RECORD, latest_checkpoint
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import kind_of, rebuild_config
from dac_nerfstudio.runs.store import Run, read_checkpoint, scene_of


def reopen(config: Any, run_dir: Path, partition: Optional[Path] = None) -> Any:
    """The pipeline of a run, a `DaCPipeline`, with the weights of its last checkpoint, ready to render the test views.

    Args:
        config: as of `recorded_config`.
        partition: file of the partition that gives views their groups; by default the run's own.

    Raises:
        StageError: there is no checkpoint, or it is damaged or holds more than tensors.
    """
    config.pipeline.datamanager.partition = partition or run_dir / PARTITION
    state = read_checkpoint(latest_checkpoint(run_dir))
    pipeline = config.pipeline.setup(device=config.machine.device_type, test_mode="test")
    pipeline.load_pipeline(state["pipeline"], state["step"])
    pipeline.eval()
    return pipeline


def recorded_config(run_dir: Path, data: Path, device: str) -> Any:
    """The configuration of a run, a `DaCTrainerConfig`, as far as its pictures depend on it.

    Args:
        data: where the photos lie that it was trained on.

    Raises:
        StageError: the record is not of one of our methods, or the photos are others.
    """
    # Not at the top: it imports every method that is registered, ours too.
    from nerfstudio.configs.method_configs import all_methods

    stage, source = Stage.load(run_dir), run_dir / RECORD
    config: Any = deepcopy(all_methods.get(stage.method))
    if not hasattr(config, "inputs"):
        raise StageError(f"{source} is of the method {stage.method}, which is not one of this project's.")
    config.machine.device_type = device
    manager, model = config.pipeline.datamanager, config.pipeline.model
    try:
        settings, parser = stage.settings["model"], stage.settings["data"]
        recorded, digest = rebuild_config(settings, source, kind_of(model)), parser["data"]
        for name in settings:
            setattr(model, name, getattr(recorded, name))
        manager.camera_res_scale_factor = float(stage.settings["resolution"])
        manager.dataparser = _parser(parser, source)
        manager.skip_missing = bool(stage.settings.get("skip_missing", False))
        if hasattr(model, "experts"):
            experts = stage.settings["experts"]
            model.experts = tuple(rebuild_config(expert["model"], source) for expert in experts)
            model.groups = tuple(int(expert["group"]) for expert in experts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StageError(f"The settings recorded in {source} are not those of a run: {error!r}. Train again.") from None
    config.data = manager.data = data
    manager.group = stage.group
    scene_dir = scene_of(Run(run_dir, stage))
    config.output_dir, config.experiment_name = scene_dir.parent, scene_dir.name
    inputs = config.inputs
    inputs.read_views()
    if inputs.data_digest != digest or not stage.has_photos_of(replace(stage, photos=inputs.photos_digest)):
        raise StageError(f"The run in {run_dir} was trained on other photos than those in {data}. Name its own: --data")
    return config


def found_again(path: Optional[Path], typed_in: Path) -> Optional[Path]:
    """A path as it is found from here, or else from the folder that it was typed in."""
    if path is None or path.exists() or not (typed_in / path).exists():
        return path
    return typed_in / path


def photos_of(run_dir: Path) -> Path:
    """Where the photos lay that a run was trained on.

    Raises:
        StageError: that is not recorded, or they are gone.
    """
    recorded = read_config(run_dir / CONFIG)
    if not recorded.get("data"):
        lost = f"an unknown place ({run_dir / CONFIG} is gone)"
    else:
        data = Path(str(recorded["data"]))
        found = found_again(data, Path(str(recorded.get("typed_in") or ".")))
        if found is not None and found.exists():
            return found
        lost = f"{data}, where they were at training"
    raise StageError(f"There are no photos at {lost}. Say where they are: --data FOLDER")


def _parser(settings: Dict[str, Any], source: Path) -> DataParserConfig:
    """The data parser that a record names, with the settings it had.

    Raises:
        StageError: nerfstudio knows no such data parser.
    """
    from nerfstudio.configs.dataparser_configs import all_dataparsers

    known = [config for config in all_dataparsers.values() if config._target.__name__ == settings["_target"]]
    if not known:
        raise StageError(f"{source} names the data parser {settings['_target']}, which nerfstudio does not know here.")
    config = deepcopy(known[0])
    hints = get_type_hints(type(config))
    for name, value in settings.items():
        if name not in ("_target", "data"):
            setattr(config, name, _typed(value, hints[name]))
    return config


def _typed(value: Any, hint: Any) -> Any:
    """A value of a record as its field has it: JSON knows neither paths nor tuples."""
    if isinstance(value, str) and Path in (hint, *get_args(hint)):
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
