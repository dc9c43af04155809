#!/bin/sh
# What a GPU machine without network still needs for benchmarks/gpu.py and dac run, as one folder to carry there (about
# 200 MB). The machine is x86-64 Linux with Python 3.12 (or the version named) and these already there, with
# all that they depend on: torch, torchvision, torchmetrics, numpy, scipy, scikit-learn, matplotlib, opencv, rich, jaxtyping,
# triton, tensorboard, networkx.
#
#     sh benchmarks/gpu_wheels.sh FOLDER [3.12]         here, in a clone, with pip and network
#     PYTHONPATH=.:FOLDER python benchmarks/gpu.py      there, in the clone
set -eu
folder=$1
python=${2:-3.12}
root=$(dirname "$0")/..

pip() {
    python3 -m pip install --quiet --no-deps --target "$folder" "$@"
}

# Named one by one: their dependencies would bring torch, CUDA, and much that only nerfstudio's viewer and exporters use.
pip --upgrade --constraint "$root/constraints.txt" --only-binary :all: --implementation cp --python-version "$python" \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any \
    nerfstudio viser gsplat nerfacc tyro typeguard docstring_parser mediapy msgspec multiprocess dill pathos ppft pox \
    pyquaternion pytorch-msssim rawpy splines tensorly websockets appdirs ipython traitlets PySocks yourdfpy nodeenv trimesh \
    tqdm pyyaml imageio requests urllib3 charset-normalizer idna certifi six psutil plotly narwhals pillow
# nerfstudio imports it for data managers of whole images, which nobody uses here; it has no wheel.
: > "$folder/fpsample.py"
# Names the methods to nerfstudio; their code is the clone's.
pip --upgrade "$root"
rm -rf "$folder/dac_nerfstudio"
