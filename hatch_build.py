"""The build hook that brings JupyterLab's panel into the wheel: as it was built, or built now where there is Node.js."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHARE = "share/jupyter/labextensions/hpcnb"


class PanelHook(BuildHookInterface):
    """A source tree without Node.js gives a wheel without the panel, and says so; everything else works."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        panel = self._panel
        if _is_old(panel):
            npm = shutil.which("npm")
            if npm:
                self._build(panel, npm)
            else:
                self.app.display_warning("There is no Node.js here: hpcnb is installed without its JupyterLab panel.")
        if self.target_name == "wheel" and (panel / "dist" / "package.json").exists():
            build_data["shared_data"] |= {
                "labextension/dist": SHARE,
                "labextension/install.json": f"{SHARE}/install.json",
            }

    def dependencies(self) -> list[str]:
        """What `_build` needs, where it has something to do."""
        return ["jupyter-builder>=1.0"] if _is_old(self._panel) and shutil.which("npm") else []

    @property
    def _panel(self) -> Path:
        return Path(self.root, "labextension")

    def _build(self, panel: Path, npm: str) -> None:
        self.app.display_info("building the JupyterLab panel …")
        builder = [sys.executable, "-c", "from jupyter_builder.main import main; main()", "build", "."]
        # Not `npm ci`, which refuses a registry that lacks some other platform's optional binary.
        install = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
        for command in install, [npm, "run", "compile"], builder:
            done = subprocess.run(
                command, cwd=panel, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
            if done.returncode:
                # A machine without a way to the registry of npm is no reason not to install the rest.
                self.app.display_warning(
                    f"{done.stdout[-2000:]}\n{command} failed: hpcnb is installed without its panel."
                )
                return


def _is_old(panel: Path) -> bool:
    """Whether sources are newer than what was built from them; a source archive has no times to go by, and is not."""
    built = panel / "dist" / "package.json"
    sources = [panel / "package.json", *(panel / "src").glob("*"), *(panel / "style").glob("*")]
    return not built.exists() or built.stat().st_mtime < max(source.stat().st_mtime for source in sources)
