"""Every code block of the pages runs and prints what the page says; generated pages are fresh."""

import importlib.util
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

from mpc.parties import configuration
from nn.command import main

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "([^":]+)(?::(\w+))?"$', re.MULTILINE)
# A newcomer's own machine, and what changes this tree or takes minutes, are not for a test.
NOT_RUN = ("pip install", "pre-commit install", "pytest", "encrypted_mnist.py --report")


def include(match):
    """Return what a snippet brings in: a file, or a section of it."""
    text = (ROOT / match[1]).read_text()
    if match[2] is None:
        return text
    return re.search(rf"\[start:{match[2]}\]\n(.*?)\n# --8<-- \[end:{match[2]}\]", text, re.DOTALL)[
        1
    ]


def blocks(page):
    """Return (language, code, what the text block right behind it says)."""
    found = [(m[1], SNIPPET.sub(include, m[2])) for m in BLOCK.finditer(page.read_text())]
    for k, (language, code) in enumerate(found):
        following = found[k + 1] if k + 1 < len(found) else ("", "")
        yield language, code, following[1] if following[0] == "text" else None


def pages_with(language):
    return [page for page in PAGES if any(b[0] == language for b in blocks(page))]


def name(page):
    return page.stem


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_languages_are_those_that_are_tested(page):
    assert {language for language, _, _ in blocks(page)} <= {"python", "console", "toml", "text"}
    # Nothing is hidden in a block of another kind.
    assert page.read_text().count("```") == 2 * len(list(blocks(page)))


@pytest.mark.parametrize("page", pages_with("python"), ids=name)
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    if "savefig" in page.read_text():
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(DOCS))
    names = {}
    for language, code, expected in blocks(page):
        if language != "python":
            continue
        exec(compile(code, page.name, "exec"), names)
        printed = capsys.readouterr().out
        if expected is not None:
            assert printed.strip() == expected.strip()


def commands(page):
    """Return the lines of the console blocks: (command, what it prints or None)."""
    for language, code, _ in blocks(page):
        if language == "console":
            for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                yield command, printed.strip() or None


# What is for several machines: tests/test_newcomer.py.
@pytest.mark.parametrize(
    "page", [p for p in pages_with("console") if p.stem != "deployment"], ids=name
)
def test_console_blocks_run(page, shell):
    for command, expected in commands(page):
        if any(words in command for words in NOT_RUN):
            continue
        done = shell(command)
        if done is None:
            continue
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if expected is not None:
            assert done.stdout.strip() == expected


def test_the_configuration_is_what_sotto_init_writes(tmp_path):
    assert main(["init", str(tmp_path / "trial")]) == 0
    client, shown = [c for language, c, _ in blocks(DOCS / "deployment.md") if language == "toml"]
    path = tmp_path / "trial" / "parties.toml"
    assert shown == path.read_text()
    assert tomllib.loads(shown)
    assert configuration.load(path).names == ("alice", "bob")
    # With a client's table as the page has it.
    head = "".join(client.splitlines(keepends=True)[:2])
    assert shown.count(head) == 1
    path.write_text(shown.replace(head, client))
    carol = configuration.load(path).clients["carol"]
    assert (carol.models, carol.trusted, len(carol.own_limits)) == (("digits",), True, 2)


def test_the_protocols_page_is_what_the_code_says():
    spec = importlib.util.spec_from_file_location("write_protocols", DOCS / "write_protocols.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.page()
    assert (DOCS / "protocols.md").read_text() == page
    for path in (ROOT / "mpc" / "protocols").glob("[a-z]*.py"):
        assert f"`mpc/protocols/{path.name}`" in page
        assert "Source: " in path.read_text() or path.stem == "linear"


def test_the_page_of_numpy_s_functions_is_what_the_tests_say():
    spec = importlib.util.spec_from_file_location("write_numpy", DOCS / "write_numpy_functions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "numpy-functions.md").read_text() == module.page()


def test_security_has_the_parameters_that_the_code_has():
    spec = importlib.util.spec_from_file_location("write_security", DOCS / "write_security.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "SECURITY.md").read_text()
    assert module.parameters() in text
    assert module.page(text) == text


def test_pages_write_no_figures_of_their_own():
    """Times and factors come from result files, by a script: a page that has one says which."""
    for page in (*sorted(DOCS.glob("*.md")), ROOT / "CONTRIBUTING.md"):
        if page.name == "protocols.md":
            continue
        text = BLOCK.sub("", page.read_text())
        # What benchmarks/publish.py fills in, which tests/test_readme.py compares.
        text = re.sub(r"<!-- figures: \w+ -->.*?<!-- end -->", "", text, flags=re.DOTALL)
        assert not re.findall(r"\b\d[\d.,]* ?(?:ms|MB|GB|images a second|times faster)\b", text), (
            page
        )
    assert '--8<-- "benchmarks/RESULTS.md' in (DOCS / "performance.md").read_text()


PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]
# What pages name of the source: files by their paths, and names of the packages in backticks.
NAMED_FILE = re.compile(
    r"\b(?:ring|mpc|nn|tests|docs|examples|benchmarks)/[\w/.-]*\.(?:py|md|ipynb|json)\b"
)
NAMED = re.compile(r"`((?:ring|mpc|nn)(?:\.\w+)+)|^::: ([\w.]+)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_pages_name_of_the_source_is_there(page):
    if page.name == "CHANGELOG.md":  # tells of former names, too
        return
    text = page.read_text()
    assert not [file for file in NAMED_FILE.findall(text) if not (ROOT / file).exists()]
    for name in ("".join(found) for found in NAMED.findall(text)):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            pytest.fail(f"{page.name} names {name}, which there is not")


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.(?:md|ipynb)", (ROOT / "mkdocs.yml").read_text()))
    there = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*") if p.suffix in (".md", ".ipynb")}
    assert listed == there
