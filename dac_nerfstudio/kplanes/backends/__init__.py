"""Fast twins of the plain PyTorch operations on planes, a module per compiler: the project's one extravagance (LLVM
intrinsics, Triton), made because beside matrix products it is these few operations that a training step waits for."""
