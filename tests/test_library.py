"What a program gets from `import lmd`."
import ast
import inspect
import re
import subprocess
import sys

import pytest

import lmd
from conftest import ROOT


def test_import_is_lazy():
    code = "import lmd, sys; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert lmd.LMD and "torch" in sys.modules


def test_every_name_is_there():
    for name in lmd.__all__: assert getattr(lmd, name).__module__.startswith("lmd."), name


def test_editors_are_told_the_same_names():
    stub = ast.parse((ROOT / "lmd/__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    told = {a.asname: node.module for node in imports for a in node.names}
    assert told == lmd._places


def sections(documented):
    "Section -> its text, of a docstring in numpydoc's form; the summary is under ''"
    parts = re.split(r"^(\w[\w ]*)\n-+\n", "\n" + (inspect.getdoc(documented) or ""), flags=re.M)
    return dict(zip(["", *parts[1::2]], parts[::2]))


def parameters(documented):
    "Names that the section Parameters describes, in their order"
    text = sections(documented).get("Parameters", "")
    assert not re.search(r"^\S[^\n]*\n(?! )", text, re.M), "a parameter without a description"
    return re.findall(r"^(\*{0,2}\w+)", text, re.M)


def arguments(documented):
    "Names of a signature, `**old` with its asterisks, without self and cls"
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    found = inspect.signature(documented).parameters.values()
    return [stars.get(p.kind, "") + p.name for p in found if p.name not in ("self", "cls")]


def methods(cls):
    "Name -> method, property or class method that a class itself holds, without private ones"
    kinds = (property, classmethod, staticmethod)
    return {name: value for name, value in vars(cls).items() if (name[0] != "_" or name == "__call__")
            and (inspect.isfunction(value) or isinstance(value, kinds))}


EXPORTED = {name: getattr(lmd, name) for name in lmd.__all__}
CLASSES = {name: value for name, value in EXPORTED.items() if inspect.isclass(value)}


@pytest.mark.parametrize("name", EXPORTED)
def test_every_name_is_documented(name):
    documented = EXPORTED[name]
    summary = sections(documented)[""].strip().split("\n\n")[0]
    assert re.fullmatch(r"\S[^\n]{10,110}", summary), "a summary of one line"
    assert parameters(documented) == arguments(documented)
    nothing = inspect.Signature.empty
    if inspect.isfunction(documented) and inspect.signature(documented).return_annotation is not nothing:
        assert "Returns" in sections(documented)


@pytest.mark.parametrize("name", CLASSES)
def test_methods_are_documented(name):
    for method, value in methods(CLASSES[name]).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        assert inspect.getdoc(function), method
        described = parameters(function)
        assert described in ([], arguments(function)), method


@pytest.mark.parametrize("name", CLASSES)
def test_methods_stand_in_the_class(name):
    "Editors and type checkers read the class body; what is patched on is hidden from them"
    cls = CLASSES[name]
    module = ast.parse(inspect.getsource(inspect.getmodule(cls)))
    body = next(n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name).body
    assert {*methods(cls)} <= {n.name for n in body if isinstance(n, ast.FunctionDef)} & {*vars(cls)}


@pytest.mark.slow
def test_wheel_works_with_no_repository_in_sight():
    "Built, installed beside the packages of the lock, used elsewhere: train, score, calibrate, detect"
    command = [str(ROOT / "scripts/release.sh"), "beside"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "detects on digits" in done.stdout
