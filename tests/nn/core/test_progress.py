"""When progress bars are shown."""

import sys

import pytest

from nn.core.progress import progress_bar


@pytest.mark.parametrize(
    ("progress", "terminal", "shown", "delay"),
    [
        (None, False, False, 2), (None, True, True, 2),
        (True, False, True, 0), (True, True, True, 0),
        (False, False, False, 2), (False, True, False, 2),
    ],
)  # fmt: skip
def test_shown_on_a_terminal_or_as_asked(progress, terminal, shown, delay, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress_bar(3, "work", "piece", progress) as bar:
        assert bar.disable is not shown
        assert not shown or bar.delay == delay
        bar.update(3)
    assert ("work: 100%" in capsys.readouterr().err) is (shown and not delay)
