"""Objects named by a user as ``package.module:name`` or ``file.py:name``, and what their code was."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NoReturn

from robustdml.errors import CheckpointError, MissingPackageError

#: Where Python and its packages lie, this one among them: their versions are known.
_INSTALLED = {
    *(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    # Those of the user, and those that an environment shares with the Python that it was made of.
    *(str(Path(path).resolve()) for path in (*site.getsitepackages(), site.getusersitepackages())),
    str(Path(__file__).resolve().parent),
    *(str(Path(__file__).resolve().parents[1] / part) for part in ("attacks", "reports")),
}


def load_object(path: str) -> Any:
    """The object that ``package.module:name`` or ``path/to/file.py:name`` names.

    A file may import what lies beside it, and is run once. Modules are looked for where Python looks, and before that
    in the folder where the command is given, which a console script does not search by itself. ``sys.path`` is left as
    it was.

    Raises:
        ImportError: there is no such module, or no such name in it; and whatever the module itself raises.
    """
    module, _, name = path.partition(":")
    if not module.strip() or not name.strip():
        raise ImportError(f"'{path}' is not of the form package.module:name")
    file = Path(module.strip()).expanduser().resolve() if module.strip().endswith(".py") else None
    here = str(file.parent if file else Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        with _kept_running():
            found: Any = _run_file(file) if file else importlib.import_module(module.strip())
        for part in name.strip().split("."):
            if not hasattr(found, part):
                raise ImportError(f"module '{module.strip()}' has no '{name.strip()}'")
            found = getattr(found, part)
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    return found


def _run_file(file: Path) -> ModuleType:
    """The module of a file, under its own name where no other module has that."""
    name = file.stem
    taken = getattr(sys.modules.get(name), "__file__", None) or importlib.util.find_spec(name)
    if taken and Path(str(getattr(taken, "origin", taken))).resolve() != file:
        name = f"{name}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ImportError(f"there is no file '{file}'")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def of_files() -> list[ModuleType]:
    """The modules that were loaded by the path of a file, which no other process finds by their names."""
    loaded = [(name, module) for name, module in list(sys.modules.items()) if isinstance(module, ModuleType)]
    files = [(name, module, vars(module).get("__file__")) for name, module in loaded if module.__name__ == name]
    return [module for name, module, file in files if file and not _is_installed(file) and not _found(name, file)]


def _found(name: str, file: str) -> bool:
    """Whether a module, or the package that it is in, is where Python looks for that name."""
    try:
        spec = PathFinder.find_spec(name.partition(".")[0])
    except (ImportError, ValueError, AttributeError):
        return False
    origin = spec and (spec.origin or next(iter(spec.submodule_search_locations or ()), None))
    return name == "__main__" or bool(origin and ("." in name or Path(origin).resolve() == Path(file).resolve()))


def needed(module: str, extra: str, what: str) -> Any:
    """A module of a package that is no dependency of all users.

    Args:
        extra: of this package, which installs it.
        what: that needs it, for the message.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{what} needs the package {module.partition('.')[0]} ({error}): pip install 'robustdml[{extra}]'"
        ) from None


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names are imported when they are first asked for.

    Args:
        package: its ``__name__``.
        homes: each name with the module below the package that defines it.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return find, lambda: sorted({*vars(sys.modules[package]), *homes})


def call_factory(source: str, what: str) -> Any:
    """What ``package.module:factory`` returns, called without arguments.

    Args:
        what: for the message: ``"the model"``, ``"the surrogate"``.

    Raises:
        CheckpointError: it cannot be imported, raises, or tries to end the program.
    """
    try:
        return called(source)
    except Exception as error:  # Foreign code may raise anything.
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise CheckpointError(
            f"{what} '{source}' cannot be loaded ({said}): it must "
            "name a module and a function without arguments that returns a torch module"
        ) from error


def called(source: str) -> Any:
    """The same, with whatever error the code raises.

    It runs as in a program of its own, with gradients whoever asks for it. It cannot end this one.

    Raises:
        RuntimeError: it tried to end the program.
        Exception: whatever it raises.
    """
    import torch  # slow to import, and listings need none of it

    with torch.inference_mode(False), torch.enable_grad(), _kept_running():
        return load_object(source)()


@contextmanager
def _kept_running() -> Iterator[None]:
    """Within the block neither `sys.exit` nor `os._exit` ends this process; those that are started in it end as ever.

    Raises:
        RuntimeError: it was tried.
    """
    end, process = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            end(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"it tried to end the program (exit code {error.code})") from error
    finally:
        os._exit = end


def code_digest(thing: Any) -> str:
    """SHA-256 of the code that defines a class or function, and of what its module imports: source files, as they are.

    Imports are not followed into installed packages, whose version says what they are. Of what is in no file, written
    in a notebook or at the prompt, it is the bytecode, and that of what it uses there. Empty for what is neither.
    """
    found: dict[str, bytes] = {}
    home = getattr(thing, "__module__", None) or ""
    waiting = [home]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        source = getattr(module, "__file__", None)
        if name in found or not source or _is_installed(source):
            continue
        try:
            found[name] = Path(source).read_bytes()
            waiting += _imported(found[name], getattr(module, "__package__", None) or "")
        except (OSError, SyntaxError, ValueError):  # No file any more, or one that is no source.
            continue
    if not getattr(sys.modules.get(home), "__file__", None) and home not in sys.stdlib_module_names:
        found = {home: code} if (code := "\n".join(_bytecode(thing)).encode()) else {}
    hashed = hashlib.sha256()
    for name in sorted(found):
        hashed.update(name.encode() + hashlib.sha256(found[name]).digest())
    return hashed.hexdigest() if found else ""


@lru_cache(maxsize=4096)
def _is_installed(source: str) -> bool:
    return bool(_INSTALLED & {str(part) for part in Path(source).resolve().parents})


@lru_cache(maxsize=1024)  # many attacks stand in one file
def _imported(source: bytes, package: str) -> list[str]:
    """The modules that a source file names in its imports, wherever these stand."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [part.name for part in node.names]
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # Of a file that is no part of a package, or of one too far up: not imported then.
                continue
            found += [base, *(f"{base}.{part.name}" for part in node.names)]
    return found


def _bytecode(thing: Any) -> Iterator[str]:
    """What a function or the methods of a class do, and the functions, classes and numbers of its module they use."""
    waiting, seen = [thing], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        part = getattr(part, "__func__", part)  # of class methods and static ones
        if isinstance(part, property):
            waiting += (part.fget, part.fset)
        elif isinstance(part, bool | int | float | str):
            yield repr(part)
        elif getattr(part, "__module__", None) != thing.__module__:
            continue
        elif isinstance(part, type):
            own = sorted(vars(part).items())
            waiting += (*part.__bases__, *(value for name, value in own if name[:2] != "__" or callable(value)))
        elif isinstance(part, FunctionType):
            for code in _nested(part.__code__):
                constants = [one for one in code.co_consts if not isinstance(one, CodeType | frozenset)]
                sets = [sorted(map(repr, one)) for one in code.co_consts if isinstance(one, frozenset)]
                yield f"{code.co_name} {code.co_code.hex()} {constants} {sets} {code.co_names}"
                waiting += (part.__globals__[name] for name in code.co_names if name in part.__globals__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
