"""The command line as a whole: help, examples, exit codes, errors in one line."""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from videossl_hf import cli
from videossl_hf.errors import ConfigurationError

COMMANDS = sorted(cli.COMMANDS)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Puts a command `try` on the command line whose `run` is the given function."""

    def install(run) -> None:
        module = types.ModuleType("videossl_hf.try_command")
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=1)
        module.run = run
        monkeypatch.setitem(sys.modules, "videossl_hf.try_command", module)
        entry = cli.Command("try_command", "try something", "videossl try --number 3")
        monkeypatch.setitem(cli.COMMANDS, "try", entry)

    return install


def raise_(error: BaseException):
    def run(args: argparse.Namespace) -> None:
        raise error

    return run


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and cli.COMMANDS[name].summary in shown for name in COMMANDS)
    assert "example:" in shown


def test_help_of_the_installed_command_takes_less_than_a_second_of_cpu() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    videossl = Path(sys.executable).with_name("videossl")
    process = subprocess.run([videossl, "--help"], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0, process.stderr
    assert "pretrain" in process.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_ends_with_an_example_that_parses(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main([name, "--help"]) == 0
    example = capsys.readouterr().out.rstrip().splitlines()[-1].strip()
    assert example.startswith(f"videossl {name} ") or example == f"videossl {name}"

    called = []
    module = __import__(f"videossl_hf.{cli.COMMANDS[name].module}", fromlist=["run"])
    monkeypatch.setattr(module, "run", called.append)
    assert cli.main(shlex.split(example)[1:]) == 0
    assert len(called) == 1


def test_wrong_calls_end_with_2_and_name_what_is_known(capsys: pytest.CaptureFixture[str], command) -> None:
    command(lambda args: None)
    assert cli.main([]) == 2
    assert cli.main(["pretrian"]) == 2
    assert "pretrain" in capsys.readouterr().err
    assert cli.main(["try", "--number", "many"]) == 2
    assert "--number" in capsys.readouterr().err


def test_a_command_gets_its_arguments(command) -> None:
    numbers = []
    command(lambda args: numbers.append(args.number))
    assert cli.main(["try", "--number", "3"]) == 0
    assert cli.main(["try"]) == 0
    assert numbers == [3, 1]


@pytest.mark.parametrize(
    "error", [ConfigurationError("a is wrong:\n  use b"), FileNotFoundError("a is wrong: use b")]
)
def test_expected_errors_are_one_line_on_stderr(error, command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raise_(error))
    assert cli.main(["try"]) == 1
    shown = capsys.readouterr()
    assert shown.err == "error: a is wrong: use b\n"
    assert shown.out == ""


def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    videossl = Path(sys.executable).with_name("videossl")
    process = subprocess.run([videossl, "info", "me/model"], env=environment, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.startswith("error: the Hub does not answer")
    assert process.stderr.count("\n") == 1


def test_debug_shows_the_traceback(command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raise_(ConfigurationError("a is wrong")))
    assert cli.main(["--debug", "try"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_ours_that_nobody_foresaw_shows_its_traceback(command, capsys) -> None:
    command(raise_(KeyError("bug")))
    assert cli.main(["try"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_ends_with_130(command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raise_(KeyboardInterrupt()))
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_imports_nothing_of_the_others() -> None:
    """The help of the whole imports no library at all, that of one command none of another's modules."""
    script = (
        "import runpy, sys; sys.argv = ['videossl', '--help']\n"
        "try: import videossl_launcher; videossl_launcher.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'av', 'huggingface_hub', 'videossl_hf'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "from videossl_hf import cli\n"
        "assert cli.main(['card', '--help']) == 0\n"
        "others = {f'videossl_hf.{c.module}' for n, c in cli.COMMANDS.items() if n not in ('card', 'push')}\n"
        "assert not others & sys.modules.keys(), others & sys.modules.keys()\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
