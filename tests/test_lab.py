"`make lab`: a notebook that was saved in JupyterLab is clean, and the home folder stays empty."
import json
import os
import subprocess
import time
import urllib.request

import nbformat
import pytest

from conftest import ROOT


@pytest.mark.slow
def test_saved_notebooks_are_clean(tmp_path):
    home, notebook = tmp_path / "home", ROOT / "nbs/tutorials/lab_test.ipynb"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "PATH": f"{ROOT/'.venv/bin'}:{os.environ['PATH']}"}
    port, token = 8917, "test"
    server = subprocess.Popen(
        [ROOT / "scripts/lab.sh", "--no-browser", "--allow-root", f"--port={port}", "--port-retries=0",
         f"--IdentityProvider.token={token}"], env=environment, text=True, stderr=subprocess.PIPE)
    shown = {"application/vnd.jupyter.widget-view+json": {"model_id": "random"}}
    controls = nbformat.v4.new_output("display_data", shown)
    cell = nbformat.v4.new_code_cell("1 + 1", id="sum", execution_count=7, metadata={"collapsed": True},
                                     outputs=[controls, nbformat.v4.new_output("stream", text="2")])
    dirty = nbformat.v4.new_notebook(cells=[cell], metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "version": "3.11"}})
    body = json.dumps({"type": "notebook", "format": "json", "content": dirty}).encode()
    address = f"http://localhost:{port}/api/contents/tutorials/lab_test.ipynb"
    ask = urllib.request.Request(address, body, method="PUT",
                                 headers={"Authorization": f"token {token}"})
    try:
        for _ in range(60):
            try: urllib.request.urlopen(ask, timeout=20); break
            except urllib.error.URLError: time.sleep(1)
        saved = nbformat.read(notebook, 4)
    finally:
        server.terminate()
        said = server.communicate(timeout=20)[1]
        notebook.unlink(missing_ok=True)
    assert "language_info" not in saved.metadata
    assert saved.cells[0].metadata == {} and saved.cells[0].execution_count is None
    assert [o.output_type for o in saved.cells[0].outputs] == ["stream"] and "Traceback" not in said, said
    assert [p for p in home.rglob("*") if p.is_file()] == []
