"""The methods import without the optional packages: one failing plugin breaks every command of nerfstudio."""

import subprocess
import sys

PROGRAM = """
import builtins, importlib.abc, os, sys, warnings
warnings.simplefilter("ignore")

BLOCKED = ("imageio_ffmpeg", "tinycudann")
OURS = (*BLOCKED, "matplotlib", "sklearn")


class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")


# nerfstudio itself imports matplotlib, so only imports of it from within this package are blocked.
def guarded(name, globals=None, *args, **kwargs):
    if name.split(".")[0] in OURS and str((globals or {}).get("__name__", "")).startswith("dac_nerfstudio"):
        raise ImportError(f"{name} is blocked in {globals['__name__']}")
    return original(name, globals, *args, **kwargs)


original, builtins.__import__ = builtins.__import__, guarded
sys.meta_path.insert(0, Blocker())

from dac_nerfstudio import methods
from dac_nerfstudio.media import provide_ffmpeg
from dac_nerfstudio.kplanes.decoders import resolve_implementation

os.environ["PATH"] = ""
provide_ffmpeg()
names = ("baseline", "expert", "distill", "finetune", "ensemble")
found = [getattr(methods, name + end).config.method_name for end in ("", "_360") for name in names]
print(",".join(found), resolve_implementation("auto", True), os.environ["PATH"] or "no-path")
print([name for name in BLOCKED if name in sys.modules], sys.modules["torch"].cuda.is_initialized())
"""


def test_the_methods_import_without_any_optional_package() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    *_, first, second = result.stdout.strip().splitlines()
    stages = ("baseline", "expert", "distill", "finetune", "ensemble")
    names = ",".join(f"dac-{stage}{suffix}" for suffix in ("", "-360") for stage in stages)
    assert first == f"{names} torch no-path"
    # Nor does importing initialise CUDA, after which a process can no longer fork.
    assert second == "[] False"
