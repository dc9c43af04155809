"""The radiance field: K-Planes (arXiv 2301.10241) built from nerfstudio's parts."""
