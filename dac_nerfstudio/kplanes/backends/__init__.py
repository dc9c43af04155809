"""Fast twins of plain PyTorch operations on planes, along rays and of small networks, a module per compiler: the
project's one extravagance (LLVM intrinsics, Triton), made because it is these few that a training step waits for."""
