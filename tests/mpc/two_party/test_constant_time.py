"""Kernels of two parties branch on sizes and places alone, and read memory at such places.

That is so in their source, and where a compiler could have turned a mask back into a branch, also in the
machine code.
"""

import ast
import importlib
import platform
import re
from pathlib import Path

import numba
import numpy as np
import pytest

import mpc
import ring
from mpc.two_party import exponential, maximum, pads, product, relu, sign, thresholds
from mpc.two_party.channel import LockStep
from mpc.two_party.pair import Pair

FILES = sorted((Path(mpc.__file__).parent / "two_party").glob("*.py"))
# The positions of silent transfers come from a stream that both parties know.
INDICES_THAT_ARE_PUBLIC = {"silent._add_base"}


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
    public = {"bits", "less", "p", "inverse"}
    secret = {a.arg for a in function.args.args} - public
    assert findings(function, secret=secret) == []


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


# Machine code.

# A jump by a bit of a register; other instructions between the two set no flags. Loops that are unrolled
# test the lowest bit of their count by another instruction.
JUMP = re.compile(r"\n\tbt[ql]?\t[^\n]*\n(?:\t(?:mov|lea)[^\n]*\n)*\tj(?:ae|b)\t[^\n]*")
on_this_processor = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="reads the assembly of x86-64"
)


def jumps(function, signature):
    """Compile a kernel anew, since code from the cache has no assembly; return its jumps by bits."""
    fresh = numba.njit(nogil=True, error_model="numpy")(function)
    fresh.compile(signature)
    (text,) = fresh.inspect_asm().values()
    assert len(text) > 500
    return JUMP.findall(text)


@pytest.fixture(scope="module")
def used():
    """The kernels, by file and name, all of which have been called."""
    generator = np.random.default_rng(5)
    z = np.zeros((2, 128), np.uint64)
    for silent in (None, "b10"):
        relu.relu_with_derivative(Pair(LockStep(), 4, silent), z, 32, 16)
    pair = Pair(LockStep())
    exponential.exp(pair, z, 36, 4)
    maximum.argmax(pair, np.zeros((2, 6, 64), np.uint64), 36)
    thresholds.below(pair, z, (1, 2), 20)
    sign.is_zero(pair, z, 20)
    product.multiply(pair, z, z)
    pads.times_bit(pair, z, np.zeros((2, 2), np.uint64))
    with mpc.Session(provider=None) as s:
        x = s.share(generator.normal(size=(20, 200)) / 16, owner="bob")
        w = s.share(generator.normal(size=(20, 200)) / 16, owner="alice")
        h = x + w
        for y in (h * h, h @ h.T, x[:2] @ w.T, x @ w.T):
            y.reveal()
    found = {}
    for parameter in kernels():
        file, name = parameter.id.split(".")
        found[parameter.id] = getattr(importlib.import_module(f"mpc.two_party.{file}"), name)
    return found


@on_this_processor
def test_no_mask_has_become_a_jump(used):
    # Kernels that others call are a part of those, and may have been called by another test.
    inside = {"rlwe_ciphertexts._remainder"}
    assert {name for name, kernel in used.items() if not kernel.signatures} <= inside
    found = {
        name: jumps(kernel.py_func, signature)
        for name, kernel in used.items()
        for signature in kernel.signatures
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


@on_this_processor
def test_the_examination_of_machine_code_finds_what_it_should():
    def masked(start, stop, bits, message, out):
        for e in range(start, stop):
            i = np.uint64(e)
            bit = bits[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
            out[e] += message[e] & (np.uint64(0) - bit)

    words = numba.uint64[::1]
    assert jumps(masked, (numba.int64, numba.int64, words, words, words))
