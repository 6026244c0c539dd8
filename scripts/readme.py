"Make README.md from nbs/index.ipynb: text, outputs and the library's example. --print writes nothing."
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor

ROOT = Path(__file__).resolve().parents[1]


def readme():
    notebook = nbformat.read(ROOT / "nbs/index.ipynb", 4)
    notebook.cells = [c for c in notebook.cells if not re.match(r"#\|\s*hide\b", c.source)]
    for cell in notebook.cells: cell.source = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)
    hidden = TagRemovePreprocessor(enabled=True, remove_input_tags={"remove-input"})
    exporter = MarkdownExporter()
    exporter.register_preprocessor(hidden, enabled=True)
    text, _ = exporter.from_notebook_node(notebook)
    text = re.sub(r"\]\((?!\w+:|#|\.\./)([^)]+)\)", r"](nbs/\1)", text)    # links are as seen from nbs/
    text = text.replace("](../", "](").replace("'../", "'").replace("```\n", "```python\n", 1)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    if "--print" in sys.argv: print(readme(), end="")
    else: (ROOT / "README.md").write_text(readme(), encoding="utf-8")
