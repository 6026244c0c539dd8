"Text is read and written as UTF-8, whatever the locale says."
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("lmd", "scripts") for path in (ROOT / folder).rglob("*.py"))
TEXT = {"read_text": 0, "write_text": 1} # method -> place of `encoding` among its arguments


def without_encoding(source):
    "Line numbers of calls that read or write text in the locale's encoding."
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call): continue
        given = {word.arg for word in node.keywords}
        if "encoding" in given or None in given: continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, "id", "")
        owner = getattr(node.func.value, "id", "") if method else ""
        if name in TEXT and method and len(node.args) <= TEXT[name]: yield node.lineno
        modes = [*node.args, *(word.value for word in node.keywords if word.arg == "mode")]
        words = [part.value for m in modes for part in ast.walk(m) if isinstance(part, ast.Constant)]
        binary = any(isinstance(w, str) and set(w) <= set("rwaxbt+") and "b" in w for w in words)
        others = "Image", "gzip", "tarfile", "zipfile", "webbrowser"
        opens = name in ("open", "fdopen") and owner not in others
        if opens and owner in ("", "io", "os", "path", "file", "Path") and not binary: yield node.lineno
        if {"text", "universal_newlines"} & given and name in ("run", "Popen", "check_output", "call"):
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_utf8(path):
    assert list(without_encoding(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("code, lines", [
    ("p.read_text()", [1]), ("p.write_text(x)", [1]), ("open(p)", [1]), ("open(p, 'w')", [1]),
    ("run(c, text=True)", [1]), ("p.read_text('utf-8')", []), ("p.write_text(x, encoding='utf-8')", []),
    ("open(p, 'rb')", []), ("open(p, mode='wb')", []), ("Image.open(p)", []), ("run(c)", [])])
def test_what_counts(code, lines): assert list(without_encoding(code)) == lines
