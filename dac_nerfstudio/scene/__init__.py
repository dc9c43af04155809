"""What nerfstudio's data parser reads of a scene: views, cameras, photos."""
