"""nerfacto, nerfstudio's own model, made fast enough for the CPU."""
