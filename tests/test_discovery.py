"""Discovery: from files, folders and modules to the workflows they define."""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flux.discovery import Discovery, discover
from flux.errors import DiscoveryError, DuplicateWorkflow
from flux.registry import Registry

FLOW = """
from flux.decorators import workflow

@workflow
async def {name}():
    return "{name}"
"""

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def python_as_it_was() -> Iterator[None]:
    """What discovery imports and puts on the path is undone."""
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def flow(name: str) -> str:
    return FLOW.format(name=name)


def names(found: Discovery) -> list[str]:
    return sorted(workflow.name for workflow in found.workflows)


def test_a_file_gives_its_workflows(write: Write):
    path = write("shop_flows.py", flow("approve") + flow("charge"))
    found = discover([path])
    assert names(found) == ["approve", "charge"]
    assert found.problems == []
    assert found.sources == [path]
    assert "shop_flows" in sys.modules


def test_a_folder_is_walked_but_not_its_tests_hidden_or_virtual_environment_folders(write: Write, tmp_path: Path):
    write("one_flow.py", flow("one"))
    write("deep/down/two_flow.py", flow("two"))
    for skipped in ("tests/a.py", "test_b.py", "c_test.py", "conftest.py", "setup.py", ".hidden/d.py", ".e.py"):
        write(skipped, flow("skipped"))
    for skipped in ("node_modules/f.py", "__pycache__/g.py", "x.egg-info/h.py", "env/lib/i.py", "pkg/__main__.py"):
        write(skipped, flow("skipped"))
    write("env/pyvenv.cfg", "")
    assert names(discover([str(tmp_path)])) == ["one", "two"]


def test_a_file_named_explicitly_is_always_read(write: Write):
    assert names(discover([write("test_named.py", flow("named"))])) == ["named"]


def test_scripts_that_have_nothing_to_do_with_flux_are_not_run(write: Write, tmp_path: Path):
    write("danger.py", "raise SystemExit('this was run')")
    write("kept_flow.py", flow("kept"))
    found = discover([tmp_path])
    assert names(found) == ["kept"]
    assert found.problems == []


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("import no_such_module_anywhere  # flux workflow", "ModuleNotFoundError: No module named 'no_such_module"),
        ("def broken(:  # flux workflow", "SyntaxError: "),
        ("# flux workflow\nraise SystemExit(2)", "SystemExit: 2 (the file ends the program"),
        ("# flux workflow\n1 / 0", "ZeroDivisionError: division by zero (broken_flow.py:2)"),
    ],
)
def test_a_file_that_fails_is_a_problem_and_the_rest_still_load(text: str, summary: str, write: Write, tmp_path: Path):
    broken = write("broken_flow.py", text)
    write("sound_flow.py", flow("sound"))
    found = discover([tmp_path])
    assert names(found) == ["sound"]
    (problem,) = found.problems
    assert problem.path == broken
    assert problem.summary.startswith(summary)
    assert "\n" not in problem.summary
    assert "broken_flow.py" in problem.traceback or "SystemExit" in problem.summary
    assert "importlib" not in problem.traceback
    assert "broken_flow" not in sys.modules


def test_a_file_without_workflows_is_a_problem_only_if_it_was_named(write: Write, tmp_path: Path):
    path = write("nothing.py", "# flux workflow\nx = 1")
    assert discover([tmp_path]).problems == []
    assert [problem.path for problem in discover([path]).problems] == [path]


def test_nothing_is_executed_twice(write: Write, tmp_path: Path):
    log = tmp_path / "log"
    path = write("once_flow.py", f"open({str(log)!r}, 'a').write('x')\n" + flow("once"))
    first = discover([path, str(path), tmp_path])
    second = discover([tmp_path])
    assert log.read_text() == "x"
    assert names(first) == ["once"]
    assert first.workflows[0] is second.workflows[0]


def test_the_running_script_is_reused(write: Write, monkeypatch: pytest.MonkeyPatch):
    path = write("script.py", "raise SystemExit('executed again')")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(path), raising=False)
    monkeypatch.setattr(
        sys.modules["__main__"], "approve", discover([write("a_flow.py", flow("approve"))]).workflows[0], False
    )
    assert names(discover([path])) == ["approve"]


def test_siblings_and_packages_import(write: Write, tmp_path: Path):
    write("lone_helper.py", "NAME = 'lone'")
    write("lone_flow.py", "from lone_helper import NAME\n" + flow("lone"))
    write("shop_pkg/__init__.py", "")
    write("shop_pkg/prices.py", "PRICE = 3")
    write("shop_pkg/sub/__init__.py", "")
    write("shop_pkg/sub/flows.py", "from ..prices import PRICE\nfrom shop_pkg import prices\n" + flow("buy"))
    found = discover([tmp_path])
    assert found.problems == []
    assert names(found) == ["buy", "lone"]
    assert found.workflows[1].func.__module__ == "shop_pkg.sub.flows"


def test_a_name_that_is_taken_gets_a_readable_other_one(write: Write, tmp_path: Path):
    found = discover(
        [write("shop/json.py", flow("a")), write("b/shopflow.py", flow("b")), write("c/shopflow.py", flow("c"))]
    )
    assert [workflow.func.__module__ for workflow in found.workflows] == ["shop_json", "shopflow", "c_shopflow"]
    assert "json" in sys.modules
    assert not hasattr(sys.modules["json"], "a")


def test_a_package_whose_name_is_taken_still_imports_its_own_modules(write: Write):
    write("mine/json/__init__.py", "")
    write("mine/json/prices.py", "PRICE = 3")
    path = write("mine/json/flows.py", "from .prices import PRICE\n" + flow("own"))
    found = discover([path])
    assert found.problems == []
    assert found.workflows[0].func.__module__ == "mine_json.flows"


def test_a_users_module_never_hides_the_standard_library(write: Write):
    write("calendar.py", "raise RuntimeError('hidden')")
    discover([write("z_flow.py", flow("z"))])
    sys.modules.pop("calendar", None)
    import calendar  # noqa: PLC0415 - the import is what is tested

    assert calendar.MONDAY == 0


def test_a_module_and_a_package_are_found_by_dotted_name(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write("dotted_pkg/__init__.py", "")
    write("dotted_pkg/a.py", flow("a"))
    write("dotted_pkg/deeper/b.py", flow("b"))
    write("dotted_pkg/unrelated.py", "raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    assert names(discover(["dotted_pkg.a"])) == ["a"]
    monkeypatch.chdir(os.sep)
    found = discover(["dotted_pkg"])
    assert names(found) == ["a", "b"]
    assert {workflow.func.__module__ for workflow in found.workflows} == {"dotted_pkg.a", "dotted_pkg.deeper.b"}


def test_an_imported_workflow_is_served_only_by_a_module_that_was_named(write: Write, tmp_path: Path):
    write("lib/sharedlib.py", flow("shared"))
    write(
        "app/app_flow.py",
        f"import sys\nsys.path.append({str(tmp_path / 'lib')!r})\nfrom sharedlib import shared\n" + flow("own"),
    )
    assert names(discover([tmp_path / "app"])) == ["own"]
    assert names(discover([tmp_path / "app" / "app_flow.py"])) == ["own", "shared"]


def test_workflows_made_by_a_function_elsewhere_are_found(write: Write, tmp_path: Path):
    write("lib/factory.py", "def make(decorate):\n    @decorate\n    async def made(): ...\n    return made")
    write(
        "app/made_flow.py",
        f"""
        import sys
        sys.path.append({str(tmp_path / "lib")!r})
        from factory import make
        from flux.decorators import workflow
        made = make(workflow)
        again = made.with_options(name="again")
        """,
    )
    assert names(discover([tmp_path / "app"])) == ["again", "made"]


def test_what_a_file_prints_goes_to_stderr(write: Write, capfd: pytest.CaptureFixture[str]):
    discover([write("noisy_flow.py", "print('hello')\n" + flow("noisy"))])
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "hello\n"


def test_a_failed_package_leaves_nothing_half_imported(write: Write, tmp_path: Path):
    write("half_pkg/__init__.py", "from . import good\nraise RuntimeError('no')")
    write("half_pkg/good.py", "x = 1")
    path = write("half_pkg/flows.py", flow("half"))
    assert discover([path]).problems[0].summary == "RuntimeError: no"
    assert not [name for name in sys.modules if name.startswith("half_pkg")]
    write("half_pkg/__init__.py", "repaired = 'the size differs, so no stale bytecode is used'")
    assert names(discover([path])) == ["half"]


@pytest.mark.parametrize("target", ["missing.py", "missing/folder", "missing_module", "missing.module", "README.md"])
def test_a_target_that_does_not_exist_says_what_to_do(
    target: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write("README.md", "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiscoveryError, match=f"{target}.*(Give|Check)"):
        discover([target])


def test_an_empty_folder_is_no_error(tmp_path: Path):
    assert discover([tmp_path]) == Discovery(sources=[tmp_path])


def test_two_workflows_of_one_name_are_refused_naming_both(write: Write, tmp_path: Path):
    first, second = write("x_flow.py", flow("twin")), write("y_flow.py", flow("twin"))
    with pytest.raises(DuplicateWorkflow) as caught:
        Registry(discover([tmp_path]).workflows)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
