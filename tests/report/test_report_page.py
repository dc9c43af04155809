"""The page and the Markdown: whole, self-contained, the same every time, and honest about what is missing."""

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from pages import Page
from run_folders import RUN, VIEWS, Maker, better, gather
from scene_folders import edited

from dac_nerfstudio.report.charts import gain_chart
from dac_nerfstudio.report.page import contents
from dac_nerfstudio.report.pictures import compare, png
from dac_nerfstudio.report.results import Gain, ViewGain, figures
from dac_nerfstudio.report.runs import LONG, STUDENT, read_scene
from dac_nerfstudio.report.writing import page_path, write_report

EVIL = "</style><script>alert('1')</script>&amp;\"><img src=x onerror=alert(2)>|`*_$x^$"


def written(folder: Path) -> str:
    write_report(folder, RUN)
    return page_path(folder).read_text("utf8")


def text_of(page: str) -> str:
    page = re.sub(r"<(style|script).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def drawn(page: str) -> str:
    """The chart in a page, or in an address."""
    _, _, data = page.partition("data:image/svg+xml;base64,")
    return base64.b64decode(data.partition('"')[0]).decode()


def runs_its_own_program_alone(page: str) -> None:
    """There is one program, and its is the only one that the content policy lets run."""
    (program,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert page.partition("script-src ")[2].startswith(f"'sha256-{digest}'\"")


def test_the_page_shows_the_figures(whole: Maker) -> None:
    text = text_of(written(whole.folder))
    assert (
        "The fine-tuned student is 0.25 dB better than the baseline (PSNR 25.75 against 25.50 dB on 4 test views; "
        "better on 2 of them). They were not compared at equal cost: all stages together took 2.6 times the "
        "baseline's time. To train a baseline for as many steps as all stages, repeat dac run with --baseline total."
        in text
    )
    assert "There are only 4 test views: differences of a few tenths of a dB may be chance." in text
    assert "PSNR of the fine-tuned student minus that of the baseline, view by view: +0.25 dB on average" in text
    assert "experts, own views 25.50 0.255 0.026 4 2x100 0:40" in text
    assert "student, fine-tuned 23.00 28.50" in text
    assert "+0.25 dB on average (group 1 +1.00 dB, group 2 −0.50 dB)" in text
    assert "test/c.png 2 −1.00" in text
    # Gains and losses in order: a, b, then c; d has neither.
    assert re.findall(r"test/(\w)\.png · group", text) == ["a", "b", "c"]
    assert "500 MB" in text and "LPIPS is left out: no weights." in text


def test_the_page_is_well_formed_and_fetches_nothing(whole: Maker) -> None:
    page = written(whole.folder)
    elements = Page(page).elements
    tags = [tag for tag, _ in elements]
    # The partition, the gain, photo, baseline and student of each of four views, six pictures of each of three.
    assert tags.count("img") == 2 + 4 * 3 + 3 * 6
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(tags)
    for tag, attributes in elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert str(value).startswith(("data:image/", "#")), (tag, name, str(value)[:50])
    assert not re.findall(r"url\((?!#)|@import", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    runs_its_own_program_alone(page)


def test_reports_of_the_same_folders_are_the_same(whole: Maker, copied: Callable) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        write_report(folder, RUN)
        return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}

    first = files(whole.folder)
    assert set(first) == {"report.html", "results.json", "results.md"}
    assert first == files(whole.folder) == files(copied(whole.folder))


def test_names_are_text_and_nothing_else(maker: Callable) -> None:
    made = maker(names=[f"test/{EVIL}{name[5]}" for name in VIEWS])
    for method in ("dac-baseline", "dac-finetune"):
        made.score(made.train(method, scene=EVIL, versions={"torch": EVIL}), left_out={"lpips": EVIL})
    page = written(made.folder)
    (chart,) = (attributes["src"] for tag, attributes in Page(page).elements if tag == "img")
    assert str(chart).startswith("data:image/svg+xml;")
    assert page.count("</style>") == page.count("<style")
    runs_its_own_program_alone(page)
    assert EVIL in text_of(page)
    markdown = (made.folder / "report" / "results.md").read_text()
    assert "<script" not in markdown.replace("\\<", "")
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    # As many cells as headings in every row: no name parts a cell in two.
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "test/" in line}
    assert cells == {4, 5}


@pytest.mark.parametrize(
    ("methods", "sentences"),
    [
        (
            ("dac-baseline",),
            (
                f"There is no fine-tuned student named {RUN}.",
                "Without both baseline and fine-tuned student there is no comparison.",
                "There is no gain to show",
            ),
        ),
        (
            ("dac-distill", "dac-finetune"),
            (f"There is no baseline named {RUN}.", "Pictures are compared only with both", "There is no gain to show"),
        ),
        (
            ("dac-baseline", "dac-finetune"),
            (
                f"There is no expert named {RUN}.",
                "There is no picture of the partition",
                "Some pictures are gone. To make them again, delete evaluation.json of",
                "What to type was not recorded",
            ),
        ),
    ],
)
def test_what_is_missing_is_said(methods: tuple[str, ...], sentences: tuple[str, ...], maker: Callable) -> None:
    made = maker().only(*methods)
    page = written(made.folder)
    Page(page)
    for sentence in sentences:
        assert sentence in text_of(page), sentence


def test_a_psnr_that_is_infinite_everywhere_is_a_dash(maker: Callable) -> None:
    made = maker().only("dac-baseline", "dac-distill", "dac-finetune")
    edited(made.run_dir("dac-baseline") / "evaluation.json", lambda content: better(content["views"], float("inf")))
    text = text_of(written(made.folder))
    assert "baseline – 0.255" in text and "is infinite, as the rendering equals the photo" in text


def test_many_views_are_charted_without_their_names(maker: Callable) -> None:
    def chart(count: int) -> str:
        views = [ViewGain(f"v{i}.png", 1 + i % 2, float(-i)) for i in range(count)]
        return drawn(gain_chart(Gain("dac-baseline", False, -1.0, 0, [], views), [20.0] * count))

    few, many = chart(10), chart(100)
    assert ">v7<" in few and ">v7<" not in many
    assert "100 test views" in many


def test_pictures_and_bars_are_beside_the_better_baseline(whole: Maker) -> None:
    whole.keep_pairs(whole.add_long(), lambda number, photo: photo // 3)
    text = written(whole.folder)
    assert "minus that of the baseline of as many steps as all stages together, view by view: −1.75" in text_of(text)
    assert "gain over the baseline, all steps, dB" in drawn(text)
    scene, gain = read_scene(whole.folder, RUN), gather(whole.folder).gain
    assert gain is not None
    baseline, student = scene.scored(LONG)[0], scene.scored(STUDENT)[0]
    seen = compare(gain.views[-1], baseline, student)
    assert seen is not None and png(seen.crop(seen.baseline)) in text


def test_a_division_by_nothing_but_places_is_said_to_be_one(whole: Maker) -> None:
    quality = {"sizes": [4, 4], "modularity": 0.3, "featureless_modularity": 0.28}
    partition = replace(whole.partition, about={"quality": quality})
    scene = replace(read_scene(whole.folder, RUN), partition=partition)
    assert "These groups follow camera position only" in contents(figures(scene), scene)["verdict"]


def test_the_table_in_markdown_has_the_figures(whole: Maker) -> None:
    write_report(whole.folder, RUN)
    lines = (whole.folder / "report" / "results.md").read_text().splitlines()
    assert "|  | PSNR ↑ | SSIM ↑ | FLIP ↓ | views | steps | time |" in lines
    assert "| student, fine-tuned | **25.75** | **0.258** | 0.026 | 4 | 150 | 0:37 |" in lines
    assert "| test/a.png | 1 | +1.50 |" in lines
    assert any(line.startswith("- LPIPS is left out") for line in lines)


def test_reporting_needs_neither_torch_nor_nerfstudio(maker: Callable) -> None:
    made = maker().everything()
    program = (
        "import sys; from pathlib import Path; from dac_nerfstudio.report.writing import write_report\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"write_report(Path({str(made.folder)!r}), {RUN!r})\n"
        "print(sorted({'torch', 'nerfstudio', 'sklearn'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
