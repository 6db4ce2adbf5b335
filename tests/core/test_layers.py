"""One direction: the plugin uses the core, systems use what is shared, and nothing goes in a circle."""

import ast
from pathlib import Path

CORE = Path(__file__).resolve().parents[2] / "cryoden_core"
#: Each system, and the other systems that it may use.
SYSTEMS = {"nmsg": set(), "mlp": set(), "phantom": set(), "dual": {"phantom"}, "evaluation": {"dual"}}
#: What stands above the systems.
ENTRIES = {"__main__", "api", "cli", "pick"}


def imports() -> dict[str, set[str]]:
    """For each room of the core (a package, or a module at its top) those that it imports, inside functions too."""
    found: dict[str, set[str]] = {}
    for path in CORE.rglob("*.py"):
        parts = path.relative_to(CORE).parts
        room = parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                above = parts[: len(parts) - node.level]
                names = [node.module] if node.module else [alias.name for alias in node.names]
                used = {[*above, *name.split(".")][0] for name in names}
                found.setdefault(room, set()).update(used - {room, "__version__"})
    return found


def test_the_core_knows_nothing_of_scipion():
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert not {name.split(".")[0] for name in names} & {"cryoden_scipion", "pyworkflow", "pwem", "tomo"}, path


def test_systems_use_each_other_only_where_one_stands_on_the_other():
    used = imports()
    assert set(SYSTEMS) <= set(used)
    for system, allowed in SYSTEMS.items():
        assert used[system] & set(SYSTEMS) <= allowed, system


def test_what_is_shared_uses_no_system():
    for room, used in imports().items():
        if room not in {*SYSTEMS, *ENTRIES}:
            assert not used & {*SYSTEMS, *ENTRIES}, room


def test_no_room_leads_back_to_itself():
    used = imports()
    # The judges of hallucination and of wedges carry out jobs of other methods, whatever these are.
    used["evaluation"] -= {"api"}

    def reached(room: str, seen: frozenset[str]) -> None:
        assert room not in seen, f"{room} leads back to itself by way of {', '.join(sorted(seen))}"
        for further in used.get(room, ()):
            reached(further, seen | {room})

    for room in used:
        reached(room, frozenset())
