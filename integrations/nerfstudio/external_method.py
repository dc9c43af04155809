"""The entry for nerfstudio's list of methods that are installed separately."""

from nerfstudio.configs.external_methods import ExternalMethod, external_methods

# Divide and Conquer
external_methods.append(
    ExternalMethod(
        """[bold yellow]Divide and Conquer (DaC)[/bold yellow]
For more information visit: https://docs.nerf.studio/nerfology/methods/dac.html

To enable Divide and Conquer, you must install it first by running:
  [grey]pip install git+REPOSITORY[/grey]""",
        configurations=[
            ("dac-baseline", "K-Planes on all views, for bounded synthetic scenes"),
            ("dac-expert", "DaC step 1: an expert for one group of views"),
            ("dac-distill", "DaC step 2: one student that learns from all experts"),
            ("dac-finetune", "DaC step 3: the student, fine-tuned on all photos"),
            ("dac-ensemble", "DaC: all experts in one checkpoint, blended at each camera"),
            ("dac-baseline-nerfacto", "nerfacto on all views, by DaC's trainer"),
            ("dac-expert-nerfacto", "nerfacto as an expert for one group of views"),
            ("dac-finetune-nerfacto", "a nerfacto student of finished runs"),
            ("dac-baseline-360", "K-Planes on all views, for real unbounded scenes"),
            ("dac-expert-360", "DaC step 1, for real unbounded scenes"),
            ("dac-distill-360", "DaC step 2, for real unbounded scenes"),
            ("dac-finetune-360", "DaC step 3, for real unbounded scenes"),
            ("dac-ensemble-360", "DaC: all experts in one checkpoint, for real unbounded scenes"),
            ("dac-baseline-nerfacto-360", "nerfacto on all views, for real unbounded scenes"),
            ("dac-expert-nerfacto-360", "nerfacto as an expert, for real unbounded scenes"),
            ("dac-finetune-nerfacto-360", "a nerfacto student, for real unbounded scenes"),
        ],
        pip_package="git+REPOSITORY",
    )
)
