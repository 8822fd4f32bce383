"""The tests that a GPU alone makes run, found by what they ask: `torch.cuda.is_available()`.

No marker tells them apart. A test counts if it asks in its body or a decorator, if a decorator is a name whose value asks
(`needs_gpu = pytest.mark.skipif(...)`), or if the `pytestmark` of its file asks.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any
from xml.etree import ElementTree

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError

_ASKS = "cuda.is_available"
#: How pytest ends when it ran tests, whatever became of them.
_RAN = (0, 1)


def gpu_tests(folder: Path) -> list[str]:
    """The ids of these tests for pytest, `FILE::NAME`, in all `test_*.py` below `folder`."""
    return [f"{path}::{name}" for path in sorted(folder.rglob("test_*.py")) for name in _asking(path.read_text("utf-8"))]


def _asking(source: str) -> Iterator[str]:
    """Names of the tests of a file that ask for a GPU."""
    if _ASKS not in source:
        return
    body = ast.parse(source).body
    given = [node for node in body if isinstance(node, ast.Assign) and _asks(node.value)]
    names = {target.id for node in given for target in node.targets if isinstance(target, ast.Name)}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            if "pytestmark" in names or decorators & names or _asks(node):
                yield node.name


def _asks(tree: ast.AST) -> bool:
    """Whether the code does; a text that says so does not."""
    return any(isinstance(node, ast.Attribute) and ast.unparse(node).endswith(_ASKS) for node in ast.walk(tree))


def run_gpu_tests(folder: Path, report: Path, limit: Seconds) -> dict[str, Any]:
    """Runs these tests by pytest, in a process of its own.

    Args:
        folder: of the tests.
        report: file for what pytest says of them (JUnit's XML).
        limit: after which pytest is ended.

    Returns:
        `passed`, `failed`, `skipped`: how many; `failures`: the names of those that failed; `error`, if any did. Or
        `not_run`, and why: there is no such test.

    Raises:
        InputError: if pytest does not run them, or not in time.
    """
    tests = gpu_tests(folder)
    if not tests:
        return {"not_run": f"no test in {folder} asks for a GPU"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    try:
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=limit)
    except TimeoutExpired as error:
        raise InputError(f"The GPU tests were ended after {limit:.0f} s, their limit.") from error
    if done.returncode not in _RAN or not report.exists():
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:] or ["no output"]
        raise InputError(f"pytest ended with code {done.returncode}: {last[0]}")
    return _counted(ElementTree.parse(report).getroot())


def _counted(report: ElementTree.Element) -> dict[str, Any]:
    cases = list(report.iter("testcase"))
    failures = [case.get("name", "") for case in cases if _has(case, "failure") or _has(case, "error")]
    skipped = sum(_has(case, "skipped") for case in cases)
    counts = {"passed": len(cases) - len(failures) - skipped, "failed": len(failures), "skipped": skipped}
    found = counts | {"failures": failures}
    return found | {"error": f"{len(failures)} of {len(cases)} tests failed: {', '.join(failures)}"} if failures else found


def _has(case: ElementTree.Element, kind: str) -> bool:
    return case.find(kind) is not None
