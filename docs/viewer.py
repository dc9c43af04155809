"""Makes docs/viewer.webp from the results of ``dac demo``: the viewer's page in headless Chromium, student on the left
and how far its experts disagree on the right: python docs/viewer.py [outputs/demo]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import Browser, choose, split_screen, wait_for_page, wait_for_picture  # noqa: E402 (a module of the tests)

PORT = 7017


def main(scene_dir: Path) -> None:
    viewer = subprocess.Popen([sys.executable, "-m", "dac_nerfstudio.cli", "view", str(scene_dir), "--port", str(PORT)])
    try:
        with TemporaryDirectory() as profile:
            wait_for_page(f"http://127.0.0.1:{PORT}", lambda: viewer.poll() is None)
            with Browser(f"http://127.0.0.1:{PORT}", Path(profile)) as page:
                wait_for_picture(page)
                page.run("document.querySelectorAll('img').forEach(image => image.remove())")  # a logo from the web
                choose(page, "Show", "2")
                choose(page, "Show", "all")
                split_screen(page)
                choose(page, "Output render split", "disagreement")
                # Whole: its longer side has as many pixels as the viewer renders at most.
                page.wait_for("/Resolution: 512x|Resolution: [0-9]+x512px/.test(document.body.innerText)", 300)
                Image.fromarray(page.screenshot()).save(HERE / "viewer.webp", quality=80)
    finally:
        viewer.terminate()
        viewer.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"))
