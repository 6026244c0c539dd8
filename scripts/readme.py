"Make README.md from nbs/index.ipynb: text and outputs, and of the code only the library's example. --print writes nothing."
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]


def readme():
    notebook = nbformat.read(ROOT / "nbs/index.ipynb", 4)
    notebook.cells = [c for c in notebook.cells if not re.match(r"#\|\s*hide\b", c.source)]
    for cell in notebook.cells: cell.source = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)
    exporter = MarkdownExporter(config={"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {"remove-input"}}})
    exporter.register_preprocessor("nbconvert.preprocessors.TagRemovePreprocessor", enabled=True)
    text, _ = exporter.from_notebook_node(notebook)
    text = re.sub(r"\]\(((?:\d|tutorials|methods|\.\))[^)]*)\)", r"](nbs/\1)", text).replace("](.)", "](nbs)")
    return re.sub(r"\n{3,}", "\n\n", text.replace("](../", "](").replace("```\n", "```python\n", 1)).strip() + "\n"


if __name__ == "__main__":
    if "--print" in sys.argv: print(readme(), end="")
    else: (ROOT / "README.md").write_text(readme(), encoding="utf-8")
