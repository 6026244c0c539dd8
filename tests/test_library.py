"What a program gets from `import lmd`."
import ast
import subprocess
import sys

import lmd
from conftest import ROOT


def test_import_is_lazy():
    code = "import lmd, sys; assert 'torch' not in sys.modules; assert lmd.LMD and 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_is_there():
    for name in lmd.__all__: assert getattr(lmd, name).__module__.startswith("lmd."), name


def test_editors_are_told_the_same_names():
    stub = ast.parse((ROOT / "lmd/__init__.pyi").read_text(encoding="utf-8"))
    told = {a.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert told == lmd._places
