"""The methods that NerfBaselines gets to know by this file: see README.md beside it."""

from nerfbaselines import register

PRESETS = {
    "real": {
        "@apply": [{"dataset": name} for name in ("mipnerf360", "tanksandtemples")],
        "@description": "Real scenes: contracted space.",
        "unbounded": True,
    },
}
PAPER = {
    "paper_title": "Divide and Conquer: Rethinking the Training Paradigm of Neural Radiance Fields",
    "paper_authors": [
        "Rongkai Ma", "Leo Lebrat", "Rodrigo Santa Cruz", "Gil Avraham", "Yan Zuo", "Clinton Fookes", "Olivier Salvado",
    ],
    "paper_link": "https://arxiv.org/pdf/2401.16144.pdf",
    "licenses": [{"name": "Apache 2.0"}],
}  # fmt: skip

for name, title, method in (
    ("dac", "Divide and Conquer", "DivideAndConquer"),
    ("dac-baseline", "K-Planes (dac-nerfstudio)", "Baseline"),
):
    register(
        {
            "id": name,
            "method_class": f"dac_nerfbaselines:{method}",
            "backends_order": ["python"],
            "metadata": {"name": title, **PAPER},
            "presets": PRESETS,
        }
    )
