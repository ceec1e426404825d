"""Imports run one way: which part of the package may know of which."""

import ast
import pathlib

import pytest

import fedpeft_jax

ROOT = pathlib.Path(fedpeft_jax.__file__).parent

LEAVES = {"roles", "specs", "layers", "losses", "metrics", "optimizers", "settings"}
LEAVES |= {"user_cache"}
ENGINE = LEAVES | {"embeddings", "backbones", "features", "data", "federated"}

# Each part beside the parts it may import. A dotted name allows that module only.
# Everyone may import itself, `typing` and `errors`, unless said otherwise below.
MAY_IMPORT = {
    "typing": set(),
    "errors": set(),
    **{leaf: set() for leaf in LEAVES},
    "optimizers": {"roles"},
    "embeddings": LEAVES | {"features"},
    "features": LEAVES,
    "backbones": LEAVES | {"embeddings.base"},
    "data": {"settings", "user_cache"},
    "federated": LEAVES | {"backbones.base", "data"},
    # What a run is made of; `training` puts it together.
    "evaluation": LEAVES | {"data"},
    "baselines": LEAVES | {"data", "centralized"},
    "centralized": {"data"},
    "per_user": LEAVES | {"data", "evaluation"},
    "protocol": {"config"},
    "scoring": LEAVES | {"backbones.base", "evaluation"},
    "communication": LEAVES,
    "checkpoint": LEAVES,
    "reporting": LEAVES,
    "early_stopping": set(),
    "plugins": ENGINE,
    "validation": {"config", "baselines"},
    "config": ENGINE | {"plugins", "validation"},
    "run_folder": {"checkpoint"},
    "preparation": ENGINE | {"config", "reporting"},
    "summary": ENGINE
    | {"baselines", "communication", "config", "evaluation", "preparation"}
    | {"per_user", "protocol"},
    "phases": ENGINE | {"config", "preparation"},
    "training": None,  # None: everything
    "cli": None,
    "__init__": None,
}

# In these folders files are plugins: a sibling is imported by the registry alone.
PLUGINS = ("embeddings", "backbones")

# Optional or slow to import: inside the function that needs them.
LAZY = {
    "torch",
    "sentence_transformers",
    "matplotlib",
    "dp_accounting",
    "tensorboardX",
    "sklearn",
}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imported(tree, at_import_time=False):
    """Absolute names of what a module imports, in functions too unless said."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            # `from package import module` imports the module.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not (at_import_time and isinstance(node, ast.FunctionDef | ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))


def imported_modules(name):
    """The modules of this package that a module imports, without `fedpeft_jax`."""
    for target in imported(ast.parse(FILES[name].read_text())):
        package, *parts = target.split(".")
        assert package not in ("experiments", "tests")
        if package != "fedpeft_jax":
            continue
        while parts and not {".".join(parts), ".".join([*parts, "__init__"])} & set(
            FILES
        ):
            parts.pop()  # a class or a function
        yield ".".join(parts) or "__init__"


def is_allowed(target, allowed):
    return any(target == name or target.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name):
    part = name.partition(".")[0]
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    if MAY_IMPORT[part] is None:
        return
    allowed = MAY_IMPORT[part] | {part, "typing", "errors"}
    if part in ("typing", "errors"):
        allowed = {part}
    for target in imported_modules(name):
        assert is_allowed(target, allowed), f"{name} imports {target}"


@pytest.mark.parametrize(
    "name",
    [n for n in FILES if n.partition(".")[0] in PLUGINS and "__init__" not in n],
)
def test_plugins_know_their_base_alone(name):
    part = name.partition(".")[0]
    for target in imported_modules(name):
        if target.partition(".")[0] == part:
            assert target == f"{part}.base", f"{name} imports its sibling {target}"


@pytest.mark.parametrize("name", FILES)
def test_heavy_packages_are_imported_where_they_are_used(name):
    tree = ast.parse(FILES[name].read_text())
    tops = {target.partition(".")[0] for target in imported(tree, at_import_time=True)}
    assert not tops & LAZY


def test_the_rules_name_no_part_that_is_gone():
    parts = {name.partition(".")[0] for name in FILES}
    assert set(MAY_IMPORT) <= parts
