"""What nerfstudio's viewer shows besides: training cameras by group, and layers of experts and baseline."""
