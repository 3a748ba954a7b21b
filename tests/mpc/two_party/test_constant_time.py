"""Kernels of two parties branch on sizes and places alone, and read memory at such places."""

import ast
from pathlib import Path

import pytest

import mpc
import ring

FILES = sorted((Path(mpc.__file__).parent / "two_party").glob("*.py"))
# The positions of silent transfers come from a stream that both parties know.
INDICES_THAT_ARE_PUBLIC = {"silent._add_base"}
# What SECURITY.md excepts: powers are read from tables, at places that a party's own share names.
INDICES_THAT_SHOW = {"powers.power"}


def kernels_of(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(d, ast.Name) and d.id == "kernel" for d in node.decorator_list
        ):
            yield node


def kernels():
    for path in FILES:
        for node in kernels_of(ast.parse(path.read_text())):
            yield pytest.param(node, id=f"{path.stem}.{node.name}")


def called():
    """The functions of `ring` that kernels call, for words that may be secret."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        source = {
            alias.name: node.module.removeprefix("ring.")
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ring.")
            for alias in node.names
        }
        for kernel in kernels_of(tree):
            for node in ast.walk(kernel):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    name = node.func.id
                    if name in source:
                        yield source[name], name


def names(node):
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def depends(function, secret=()):
    """Names that hold something read from an array, or made of it or of what is secret."""
    tainted = set(secret)
    while True:
        before = set(tainted)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                value = node.value
                reads = any(
                    isinstance(n, ast.Subscript)
                    and not (isinstance(n.value, ast.Attribute) and n.value.attr == "shape")
                    and not isinstance(n.slice, ast.Slice)
                    and not views(n)
                    for n in ast.walk(value)
                )
                if reads or names(value) & tainted:
                    tainted |= {
                        n.id
                        for target in targets
                        for n in ast.walk(target)
                        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                    }
        if tainted == before:
            return tainted


def views(node):
    """Whether it takes a row or a piece of an array, whose name is no secret."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return any(isinstance(part, ast.Slice) for part in parts)


def findings(function, places=True, secret=()):
    """What branches, counts or reads memory by something that has been read, or is secret."""
    secret, found = depends(function, secret), []

    def read(node):
        inside = [n for n in ast.walk(node) if isinstance(n, ast.Subscript)]
        return names(node) & secret or any(
            not (isinstance(n.value, ast.Attribute) and n.value.attr == "shape") for n in inside
        )

    for node in ast.walk(function):
        if isinstance(node, ast.If | ast.IfExp | ast.While) and read(node.test):
            found.append(ast.unparse(node.test))
        if isinstance(node, ast.For) and read(node.iter):
            found.append(ast.unparse(node.iter))
        if places and isinstance(node, ast.Subscript) and read(node.slice):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("function", list(kernels()))
def test_no_branch_and_no_place_depends_on_what_is_read(function, request):
    public = request.node.callspec.id in INDICES_THAT_ARE_PUBLIC
    assert findings(function, places=not public) == []
    assert bool(findings(function)) == public


@pytest.mark.parametrize(("module", "name"), sorted(set(called())))
def test_nor_in_what_kernels_call(module, name):
    tree = ast.parse((Path(ring.__file__).parent / f"{module}.py").read_text())
    (function,) = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == name]
    # Numbers that say what is computed, not of what.
    public = {"bits", "row", "table", "p", "inverse"}
    secret = {a.arg for a in function.args.args} - public
    assert bool(findings(function, secret=secret)) == (f"{module}.{name}" in INDICES_THAT_SHOW)
    assert not findings(function, places=False, secret=secret)


@pytest.mark.parametrize(
    "body",
    [
        "if a[e]: out[e] = 1",
        "x = a[e] & 1\n  if x: out[e] = 1",
        "x = a[e] & 1\n  y = x + 1\n  out[e] = 2 if y else 3",
        "out[a[e]] = 1",
        "x = a[e]\n  x += 1\n  out[x] = 1",
        "for k in range(a[e]): out[e] += 1",
        "row = a[e]\n  while row: row >>= 1",
    ],
)
def test_the_examination_finds_what_it_should(body):
    text = f"def f(start, stop, a, out):\n for e in range(start, stop):\n  {body}"
    (function,) = ast.parse(text).body
    assert findings(function)


def test_there_are_kernels():
    assert len(list(kernels())) > 15
