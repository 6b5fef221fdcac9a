"""Packages import only what lies below them, ARCHITECTURE.md names what is there, and old names are importable as before.

Imports are read from the source text, those inside functions too; nothing of the package is run for that.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import ecgfounder
from ecgfounder._moved import MOVED
from tests.places import ROOT

SOURCES = ROOT / "src" / "ecgfounder"
PAGE = ROOT / "ARCHITECTURE.md"

GROUND = "_version checks errors escaping machine"
"""What every package may import."""
ALONE = ("_moved", "_version", "errors", "escaping", "machine", "net1d")
"""What imports nothing of the package, not even the ground."""
EVERYTHING = "*"

MAY_IMPORT = {
    "_moved": "",
    "_version": "",
    "errors": "",
    "escaping": "",
    "machine": "",
    "net1d": "",
    "checks": "",
    "ecg": "",
    "storage": "",
    "cohort": "storage",
    "network": "ecg storage net1d",
    "readers": "ecg storage",
    "sinks": "ecg storage",
    "preprocess": "ecg network",
    "engines": "network net1d storage",
    "ledger": "cohort ecg network sinks storage",
    "stages": "ecg ledger network preprocess readers sinks storage",
    "drivers": "ecg preprocess stages storage",
    "distributed": "drivers engines ledger network sinks stages storage",
    "run": "cohort distributed drivers ecg engines ledger network preprocess readers sinks stages storage",
    "results": "cohort ledger network sinks storage",
    "chat": "cohort ledger preprocess results storage",
    "analysis": "cohort ecg network preprocess readers results storage",
    "viewer": "analysis ecg ledger network preprocess results storage",
    "dataset": "cohort preprocess readers storage",
    "model": "net1d network",
    "evidence": "network",
    "embedder": "drivers ecg engines evidence network preprocess readers stages storage",
    "demo": "ecg network readers",
    "localisation": "demo ecg embedder evidence network storage",
    "embedding": "cohort drivers ecg preprocess readers results run storage",
    "random_networks": "analysis embedding preprocess results storage",
    "commands": EVERYTHING,
    "cli": "commands",
    "ecgfounder": f"_moved dataset ecg embedder embedding {GROUND} model net1d preprocess readers results run",
}
"""Who may import whom: a package or a module beside them, and what it may import beside itself and the ground.

Each stands below what it may import, so that no circle of packages can come in.
"""

WITHIN_ANALYSIS = {
    "statistics": "",
    "rows": "statistics",
    "pages": "statistics",
    "similarity": "rows",
    "probing": "pages rows statistics",
    "acquisition": "pages probing rows statistics",
    "duplication": "pages rows similarity statistics",
    "comparison": "pages similarity statistics",
    "reporting": "acquisition comparison duplication pages probing rows statistics",
}
"""Which packages of `analysis` may import which."""

NEVER_LOADS = {
    "drivers": "ledger sinks distributed run results commands cli",
    "distributed": "run results commands cli",
    "stages.read": "ledger sinks engines drivers run",
    "stages.batch": "ledger sinks engines drivers run readers",
    "stages.embed": "ledger sinks engines drivers run",
    "stages.collect": "ledger sinks engines drivers run",
    "stages.pooling": "ledger sinks engines drivers run readers",
    "stages.record": "engines drivers run",
    "ledger": "stages drivers run results engines",
    "results": "stages drivers run engines commands",
    "chat": "stages drivers run engines commands",
    "analysis": "stages drivers run engines commands",
    "viewer": "stages drivers run engines commands",
    "embedder": "cohort ledger sinks run results commands cli",
    "dataset": "ledger sinks engines stages drivers run results",
    "model": "readers ledger engines stages drivers run results",
    "demo": "ledger engines stages drivers run results",
}
"""What must not come in by any way, not through others either."""

OPEN = ("_filters", "_moved", "_net1d", "_loops", "_numbers", "_passes", "_version", "_xli")
"""Modules whose names begin with an underscore and that others may import: compiled ones, and two of the package itself."""


# --- imports, as they stand in the source text -------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One module imports another, or something of it.

    Attributes
    ----------
    importer, imported : modules, by their names below the package; "ecgfounder" is the package itself.
    name : what is taken of it; "" for the module as a whole.
    line : where it stands.
    for_types : whether it is there for type checkers alone.
    """

    importer: str
    imported: str
    name: str
    line: int
    for_types: bool

    def __str__(self) -> str:
        what = f"{self.name} of {self.imported}" if self.name else self.imported
        return f"{self.importer}, line {self.line}, imports {what}"


def sources_of(root: Path) -> dict[str, str]:
    """Every module's source text; of a compiled one, what its stub says."""
    texts = {}
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.pyi")]):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        texts[name or "ecgfounder"] = path.read_text(encoding="utf-8")
    return texts


def imports_of(texts: Mapping[str, str]) -> list[Import]:
    return [each for name, text in texts.items() for each in _Reader(name, texts).read(text)]


class _Reader(ast.NodeVisitor):
    """Collects what one module imports of the package."""

    def __init__(self, module: str, known: Collection[str]) -> None:
        self._module = module
        self._known = known
        self._for_types = False
        self._found: list[Import] = []

    def read(self, text: str) -> list[Import]:
        self.visit(ast.parse(text))
        return self._found

    def visit_If(self, node: ast.If) -> None:
        outer = self._for_types
        self._for_types = outer or ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for each in node.body:
            self.visit(each)
        self._for_types = outer
        for each in node.orelse:
            self.visit(each)

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            self._add(each.name, "", node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert not node.level, f"{self._module}, line {node.lineno}: a relative import; imports name the package"
        for each in node.names:
            self._add(node.module or "", each.name, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        """`import_module(f"ecgfounder.commands.{name}")` imports something of the package that it names."""
        if last_name(node.func).endswith("import_module") and node.args:
            text = ast.unparse(node.args[0]).lstrip("f").strip("'\"").partition("{")[0]
            self._add(text.rstrip("."), "", node.lineno)
        self.generic_visit(node)

    def _add(self, module: str, name: str, line: int) -> None:
        if module.partition(".")[0] != "ecgfounder":
            return
        below = module.removeprefix("ecgfounder").removeprefix(".")
        submodule = f"{below}.{name}".strip(".")
        if submodule in self._known:
            below, name = submodule, ""
        imported = below or "ecgfounder"
        if imported != self._module:
            self._found.append(Import(self._module, imported, name, line, self._for_types))


def last_name(node: ast.expr) -> str:
    """The name that stands last in a dotted one; "" of anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def room_of(module: str) -> str:
    return module.partition(".")[0]


def packages_around(module: str) -> Iterator[str]:
    """The packages that are imported with a module."""
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


# --- what is wrong with them -------------------------------------------------------------------------------------------


def wrong_arrows(imports: Sequence[Import]) -> list[str]:
    """Imports that the table does not allow."""
    return [f"{each}: not allowed" for each in imports if not _is_allowed(each)]


def _is_allowed(each: Import) -> bool:
    here, there = room_of(each.importer), room_of(each.imported)
    if here == there:
        return True
    if here in ALONE or here not in MAY_IMPORT:
        return False
    if MAY_IMPORT[here] == EVERYTHING:
        return there != "cli"
    return there in f"{GROUND} {MAY_IMPORT[here]}".split()


def arrows_of(imports: Sequence[Import]) -> dict[str, set[str]]:
    """What each module loads by itself, packages around what it names among it."""
    arrows: dict[str, set[str]] = {}
    for each in imports:
        if not each.for_types:
            around = {name for name in packages_around(each.imported) if not f"{each.importer}.".startswith(f"{name}.")}
            arrows.setdefault(each.importer, set()).update({each.imported} | around)
    return arrows


def circles(imports: Sequence[Import]) -> list[str]:
    """Ways by which a module comes back to itself."""
    arrows = arrows_of(imports)
    found: list[str] = []
    over: set[str] = set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append(" -> ".join([*way[way.index(module) :], module]))
        elif module not in over:
            for other in sorted(arrows.get(module, ())):
                walk(other, [*way, module])
            over.add(module)

    for module in sorted(arrows):
        walk(module, [])
    return found


def private_names(imports: Sequence[Import]) -> list[str]:
    """Imports of what is another module's own."""
    return [f"{each}: private" for each in imports if _is_private(each)]


def _is_private(each: Import) -> bool:
    parts = [*each.imported.split("."), *filter(None, [each.name])]
    return any(part.startswith("_") and not part.endswith("__") and part not in OPEN for part in parts)


def loaded_by(start: str, imports: Sequence[Import]) -> dict[str, str]:
    """All that comes in with a module or a package, each with what brought it."""
    arrows = arrows_of(imports)
    todo = [module for module in arrows if f"{module}.".startswith(f"{start}.")]
    brought: dict[str, str] = dict.fromkeys(todo, "")
    while todo:
        module = todo.pop()
        for other in sorted(arrows.get(module, set()) - set(brought)):
            brought[other] = module
            todo.append(other)
    return brought


def loads_in_secret(imports: Sequence[Import]) -> list[str]:
    """What comes in by detours although it must not."""
    found = []
    for start, never in NEVER_LOADS.items():
        for module, by in loaded_by(start, imports).items():
            if room_of(module) in never.split():
                found.append(f"{start} loads {module}, by way of {by}")
    return found


# --- the tree ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return sources_of(SOURCES)


@pytest.fixture(scope="module")
def imports(texts: dict[str, str]) -> list[Import]:
    return imports_of(texts)


def test_all_of_the_package_is_read(texts: dict[str, str], imports: list[Import]) -> None:
    assert {room_of(name) for name in texts} == set(MAY_IMPORT)
    assert set(NEVER_LOADS) <= set(texts)
    inside = [each for each in imports if (each.importer, each.imported) == ("engines.choice", "engines.native")]
    assert len(inside) == 2  # both stand in functions


def test_packages_import_only_what_they_may(imports: list[Import]) -> None:
    assert wrong_arrows(imports) == []


def test_packages_of_analysis_import_only_what_they_may(imports: list[Import]) -> None:
    names = [(each.importer.split("."), each.imported.split(".")) for each in imports]
    inside = [
        (here[1], there[1])
        for here, there in names
        if here[0] == there[0] == "analysis" and len(here) == len(there) == 3
    ]
    drawn = {(here, there) for here, there in inside if here != there}
    assert drawn == {(here, there) for here, allowed in WITHIN_ANALYSIS.items() for there in allowed.split()}
    order = list(WITHIN_ANALYSIS)
    assert [(here, there) for here, there in drawn if order.index(there) >= order.index(here)] == []


def test_every_arrow_of_the_table_is_one_that_is_needed(imports: list[Import]) -> None:
    drawn = {(room_of(each.importer), room_of(each.imported)) for each in imports}
    allowed = {(here, there) for here, there in _table() if there not in GROUND.split()}
    assert allowed - drawn == set()


def test_the_table_goes_one_way() -> None:
    order = list(MAY_IMPORT)
    assert [(here, there) for here, there in _table() if order.index(there) >= order.index(here)] == []


def _table() -> Iterator[tuple[str, str]]:
    for here, allowed in MAY_IMPORT.items():
        if allowed != EVERYTHING:
            yield from ((here, there) for there in allowed.split())


def test_no_module_comes_back_to_itself(imports: list[Import]) -> None:
    assert circles(imports) == []


def test_nothing_comes_in_by_a_detour_that_may_not_come_in(imports: list[Import]) -> None:
    assert loads_in_secret(imports) == []


def test_a_private_name_stays_in_its_module(imports: list[Import]) -> None:
    assert private_names(imports) == []


@pytest.mark.parametrize(
    ("check", "module", "planted", "reported"),
    [
        (
            wrong_arrows,
            "stages.read",
            "def _later() -> None:\n    from ecgfounder.drivers.local import Pipeline\n",
            "stages.read, line {}, imports Pipeline of drivers.local: not allowed",
        ),
        (
            wrong_arrows,
            "results.run",
            "if TYPE_CHECKING:\n    from ecgfounder.run.plan import Plan\n",
            "results.run, line {}, imports Plan of run.plan: not allowed",
        ),
        (
            wrong_arrows,
            "net1d",
            "pass\nimport ecgfounder.errors\n",
            "net1d, line {}, imports errors: not allowed",
        ),
        (
            wrong_arrows,
            "storage.paths",
            "pass\nfrom ecgfounder import load\n",
            "storage.paths, line {}, imports load of ecgfounder: not allowed",
        ),
        (
            wrong_arrows,
            "run.run",
            'pass\nimportlib.import_module(f"ecgfounder.commands.{name}")\n',
            "run.run, line {}, imports commands: not allowed",
        ),
        (
            circles,
            "storage.replace",
            "pass\nfrom ecgfounder.storage import local\n",
            "storage.local -> storage.replace -> storage.local",
        ),
        (
            loads_in_secret,
            "stages.pooling",
            "pass\nfrom ecgfounder.ledger import entry\n",
            "embedder loads ledger.entry, by way of stages.pooling",
        ),
        (
            private_names,
            "results.store",
            "pass\nfrom ecgfounder.sinks.parquet import _lists\n",
            "results.store, line {}, imports _lists of sinks.parquet: private",
        ),
    ],
    ids=[
        "in a function",
        "for types",
        "of one that stands alone",
        "by the front door",
        "by text",
        "circle",
        "detour",
        "own",
    ],
)
def test_a_wrong_import_is_reported_by_name(
    check: Callable[[Sequence[Import]], list[str]],
    module: str,
    planted: str,
    reported: str,
    texts: dict[str, str],
    imports: list[Import],
) -> None:
    line = texts[module].count("\n") + 2
    others = [each for each in imports if each.importer != module]
    found = check([*others, *_Reader(module, texts).read(texts[module] + planted)])
    assert reported.format(line) in found


def test_imports_for_type_checkers_alone_make_no_circle(texts: dict[str, str], imports: list[Import]) -> None:
    planted = texts["storage.replace"] + "if TYPE_CHECKING:\n    from ecgfounder.storage import local\n"
    others = [each for each in imports if each.importer != "storage.replace"]
    changed = _Reader("storage.replace", texts).read(planted)
    assert [(each.imported, each.for_types) for each in changed].count(("storage.local", True)) == 1
    assert circles([*others, *changed]) == []


# --- the page ----------------------------------------------------------------------------------------------------------

_ROW = re.compile(r"^\| `(?P<package>[\w/]+)/` \| (?P<modules>(?:`\w+` ?)+)\|", re.MULTILINE)
_PATH = re.compile(r"`(?P<path>[A-Za-z_]\w*(?:[./]\w+)+)(?:\(\))?/?`")
_FILES = (".json", ".jsonl", ".pq", ".csv", ".md", ".toml", ".h", ".c")


def modules_by_package(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """What lies directly in each package; packages count as lying in nothing."""
    inside: dict[str, set[str]] = {}
    packages = {package for name in texts for package in packages_around(name)}
    for name in texts:
        if name not in packages and name != "ecgfounder":
            package, _, module = f"ecgfounder.{name}".rpartition(".")
            inside.setdefault(package.removeprefix("ecgfounder.").replace(".", "/"), set()).add(module)
    return inside


def test_the_page_lists_every_package_with_its_modules(texts: dict[str, str]) -> None:
    listed = {row["package"]: set(row["modules"].replace("`", "").split()) for row in _ROW.finditer(PAGE.read_text())}
    assert listed == modules_by_package(texts)


def test_every_module_and_function_that_the_page_names_is_there() -> None:
    named = [found["path"] for found in _PATH.finditer(PAGE.read_text()) if not found["path"].endswith(_FILES)]
    ours = [path for path in named if path.startswith("tests/") or re.split("[./]", path)[0] in MAY_IMPORT]
    assert len(ours) > 20
    assert [path for path in ours if not is_there(path)] == []


def test_every_folder_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(\w+)/`", PAGE.read_text())) - {"ecgfounder"}
    assert {name for name in named if not (SOURCES / name).is_dir()} == set()


def is_there(path: str) -> bool:
    """Whether a path ('stages/read.py') or a dotted name ('stages.read.ReadTask.events') is of something."""
    if path.startswith("tests/"):
        return (ROOT / path).exists()
    if "/" in path:
        return (SOURCES / path).exists()
    names = path.removeprefix("ecgfounder.").split(".")
    value: object = ecgfounder
    module = "ecgfounder"
    for name in names:
        if importlib.util.find_spec(module) is not None and _is_module(f"{module}.{name}"):
            module = f"{module}.{name}"
            value = importlib.import_module(module)
        elif name in getattr(value, "__annotations__", {}):
            return name == names[-1]
        elif hasattr(value, name):
            value, module = getattr(value, name), "-"
        else:
            return False
    return True


def _is_module(name: str) -> bool:
    if name.startswith("-"):
        return False
    package = importlib.import_module(name.rpartition(".")[0])
    return hasattr(package, "__path__") and importlib.util.find_spec(name) is not None


@pytest.mark.parametrize(
    "path", ["stages/reed.py", "stages.reed", "stages.read.Jobs", "stages.read.Job.name", "tests/x.py"]
)
def test_a_name_that_leads_nowhere_is_noticed(path: str) -> None:
    assert not is_there(path)


def test_contributing_leads_to_the_page() -> None:
    assert "(ARCHITECTURE.md)" in (ROOT / "CONTRIBUTING.md").read_text()


# --- names of version 0.1.0 --------------------------------------------------------------------------------------------

NOW = {
    "ecgfounder.chat.ECG_QUESTIONS": "ecgfounder.chat.forms.ECG_QUESTIONS",
    "ecgfounder.demo.write_demo_checkpoint": "ecgfounder.demo.demo.write_demo_checkpoint",
    "ecgfounder.demo.write_demo_cohort": "ecgfounder.demo.demo.write_demo_cohort",
    "ecgfounder.embedder.Embedder": "ecgfounder.Embedder",
    "ecgfounder.embedder.load": "ecgfounder.load",
    "ecgfounder.embedder.recording_from_array": "ecgfounder.recording_from_array",
    "ecgfounder.engines.Engine": "ecgfounder.engines.engine.Engine",
    "ecgfounder.engines.create_engine": "ecgfounder.engines.choice.create_engine",
    "ecgfounder.inspect.find_out": "ecgfounder.commands.inspect.find_out",
    "ecgfounder.model.Bundle": "ecgfounder.Bundle",
    "ecgfounder.model.ft_12lead_ECGFounder": "ecgfounder.ft_12lead_ECGFounder",
    "ecgfounder.model.ft_1lead_ECGFounder": "ecgfounder.ft_1lead_ECGFounder",
    "ecgfounder.net1d.Net1D": "ecgfounder.Net1D",
    "ecgfounder.dataset.ECGDataset": "ecgfounder.ECGDataset",
    "ecgfounder.dataset.collate_by_length": "ecgfounder.collate_by_length",
    "ecgfounder.dataset.collate_cropped": "ecgfounder.collate_cropped",
    "ecgfounder.plot.plot_recording": "ecgfounder.ecg.plot.plot_recording",
    "ecgfounder.preprocess.Butterworth": "ecgfounder.preprocess.recipes.Butterworth",
    "ecgfounder.preprocess.MedianBaseline": "ecgfounder.preprocess.recipes.MedianBaseline",
    "ecgfounder.preprocess.Notch": "ecgfounder.preprocess.recipes.Notch",
    "ecgfounder.preprocess.Preparation": "ecgfounder.preprocess.preparation.Preparation",
    "ecgfounder.preprocess.Recipe": "ecgfounder.preprocess.recipes.Recipe",
    "ecgfounder.preprocess.Signal": "ecgfounder.preprocess.signals.Signal",
    "ecgfounder.preprocess.prepare": "ecgfounder.preprocess.signals.prepare",
    "ecgfounder.preprocess.token_times": "ecgfounder.preprocess.signals.token_times",
    "ecgfounder.quality.FLAGS": "ecgfounder.preprocess.quality.FLAGS",
    "ecgfounder.readers.read_ecg": "ecgfounder.read_ecg",
    "ecgfounder.readers.source.Hints": "ecgfounder.Hints",
    "ecgfounder.recipes.Butterworth": "ecgfounder.preprocess.recipes.Butterworth",
    "ecgfounder.recipes.FILTERED": "ecgfounder.preprocess.recipes.FILTERED",
    "ecgfounder.recipes.Filter": "ecgfounder.preprocess.recipes.Filter",
    "ecgfounder.recipes.MedianBaseline": "ecgfounder.preprocess.recipes.MedianBaseline",
    "ecgfounder.recipes.Notch": "ecgfounder.preprocess.recipes.Notch",
    "ecgfounder.recipes.PAPER": "ecgfounder.preprocess.recipes.PAPER",
    "ecgfounder.recipes.RECIPES": "ecgfounder.preprocess.recipes.RECIPES",
    "ecgfounder.recipes.Recipe": "ecgfounder.preprocess.recipes.Recipe",
    "ecgfounder.recipes.ZSCORE": "ecgfounder.preprocess.recipes.ZSCORE",
    "ecgfounder.recording.Recording": "ecgfounder.ecg.recording.Recording",
    "ecgfounder.runs.EmbeddingRun": "ecgfounder.results.run.EmbeddingRun",
    "ecgfounder.runs.Embeddings": "ecgfounder.results.arrays.Embeddings",
    "ecgfounder.runs.Join": "ecgfounder.results.join.Join",
    "ecgfounder.runs.open_run": "ecgfounder.results.run.open_run",
    "ecgfounder.runs.read_embedding": "ecgfounder.results.store.read_embedding",
}
"""What documentation of version 0.1.0 imported, and where it is now."""


def imported(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("old", NOW)
def test_a_documented_name_of_the_first_version_is_what_it_is_now(old: str) -> None:
    assert imported(old) is imported(NOW[old])


@pytest.mark.parametrize("old", MOVED)
def test_an_old_module_is_the_new_one_and_no_copy(old: str) -> None:
    assert importlib.import_module(old) is importlib.import_module(MOVED[old])


def test_old_names_may_come_first() -> None:
    """In a process that has imported nothing of the package yet, and by every form of import."""
    lines = [f"import {old}; from ecgfounder import {old.rpartition('.')[2]} as by_name" for old in MOVED]
    lines = [
        f"{line}; import {MOVED[old]}; assert by_name is {old} is {MOVED[old]}"
        for line, old in zip(lines, MOVED, strict=True)
    ]
    run_alone("\n".join(lines))


def test_every_public_name_is_there() -> None:
    assert all(getattr(ecgfounder, name) is not None for name in ecgfounder.__all__)
    assert set(ecgfounder.__all__) <= set(dir(ecgfounder))


@pytest.mark.parametrize(
    "line",
    ["import ecgfounder.preprocess", "from ecgfounder import preprocess", "import ecgfounder.preprocess.signals"],
)
def test_prepare_stays_a_function_whatever_is_imported(line: str) -> None:
    """A module of the name of a public function would take its place."""
    run_alone(
        f"{line}\nimport ecgfounder\nassert ecgfounder.prepare.__name__ == 'prepare' and callable(ecgfounder.prepare)"
    )


def test_no_module_has_the_name_of_a_public_function(texts: dict[str, str]) -> None:
    assert {room_of(name) for name in texts} & set(ecgfounder.__all__) == set()


def run_alone(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
