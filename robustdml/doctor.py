"""Whether this machine can do the work: versions, devices, caches, and how to mend what is wrong. Loads torch late."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from robustdml._version import __version__
from robustdml.errors import RobustDMLError
from robustdml.printable import plain

#: ``broken``: robustdml cannot work here; ``problem``: some of it cannot; ``note``: good to know; ``ok``: all is well.
State = Literal["ok", "note", "problem", "broken"]

#: Variables that robustdml, or what it stands on, reads: docs/commands.md says what each does.
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "RAY_ADDRESS",
    "TORCH_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TMPDIR",
    "NO_COLOR",
    "COLUMNS",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_GIB = 2**30
#: A checkpoint of a large backbone takes about so much.
_ROOM = 2 * _GIB


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at.

    Args:
        name: what it is, in a word or two.
        state: how it stands.
        found: what is there, in a line.
        remedy: what to type or to change; empty where nothing need be.
    """

    name: str
    state: State
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON values."""
        return asdict(self)


def examine(device: str = "auto") -> list[Diagnosis]:
    """Look at everything once; a part that cannot be looked at is a finding, never an error.

    Args:
        device: that the user wants to work on, as for ``--device``.
    """
    parts: tuple[tuple[str, Callable[[], Iterator[Diagnosis]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("torch and torchvision", _pair),
        ("devices", lambda: _devices(device)),
        ("extras", _extras),
        ("caches", _caches),
        ("environment", _variables),
    )
    found: list[Diagnosis] = []
    for name, look in parts:
        try:
            found += look()
        except Exception as error:  # What is broken here is what is looked for: it may raise anything.
            found.append(
                Diagnosis(name, "broken", _line(error), "make a new environment and install robustdml into it")
            )
    return found


def _line(error: BaseException) -> str:
    return plain(f"{type(error).__name__}: {error}")[:300]


def _python() -> Iterator[Diagnosis]:
    where = Path(sys.prefix)
    yield Diagnosis("robustdml", "ok", f"{__version__} in {Path(__file__).parent}")
    old = sys.version_info < (3, 10)
    yield Diagnosis(
        "python",
        "broken" if old else "ok",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, in {where}",
        "install Python 3.10 or newer" if old else "",
    )
    if sys.prefix == sys.base_prefix:
        yield Diagnosis(
            "environment",
            "note",
            "no virtual environment: torchattacks pins an old requests and installs a package called robustbench",
            "python3 -m venv .venv && .venv/bin/pip install robustdml",
        )


def _required() -> list[tuple[Requirement, str]]:
    """What robustdml declares, each with the extra that it belongs to, empty for what it always needs."""
    found = []
    for text in metadata.requires("robustdml") or []:
        try:
            need = Requirement(text)
        except InvalidRequirement:  # pragma: no cover -- metadata of another form than today's
            continue
        extra = next((name for name in _extra_names() if need.marker and _only_with(need, name)), "")
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            found.append((need, extra))
    return found


def _extra_names() -> list[str]:
    return metadata.metadata("robustdml").get_all("Provides-Extra") or []


def _only_with(need: Requirement, extra: str) -> bool:
    assert need.marker is not None
    return need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""})


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Diagnosis]:
    try:
        needs = [need for need, extra in _required() if not extra]
    except metadata.PackageNotFoundError:
        yield Diagnosis(
            "packages",
            "note",
            "robustdml runs from a checkout that is not installed, so that its requirements are not known",
            "pip install -e . in the checkout",
        )
        return
    wrong = False
    for need in sorted(needs, key=lambda need: need.name):
        version = _installed(need.name)
        if version is None:
            wrong = True
            yield Diagnosis(need.name, "broken", "not installed", f"pip install '{need.name}{need.specifier}'")
        elif not need.specifier.contains(Version(version), prereleases=True):
            wrong = True
            yield Diagnosis(
                need.name,
                "problem",
                f"{version} is installed and {need.specifier} is needed",
                f"pip install '{need.name}{need.specifier}'",
            )
    if not wrong:
        named = ", ".join(f"{need.name} {_installed(need.name)}" for need in sorted(needs, key=lambda need: need.name))
        yield Diagnosis("packages", "ok", named)


def _pair() -> Iterator[Diagnosis]:
    name = "torch and torchvision"
    torch_version, vision_version = _installed("torch"), _installed("torchvision")
    found = f"torch {torch_version}, torchvision {vision_version}"
    if torch_version is None or vision_version is None:
        yield Diagnosis(name, "broken", found, "pip install torch torchvision")
        return
    # Since torch 2.0 and torchvision 0.15 the two count in step.
    wanted = f"0.{Version(torch_version).minor + 15}"
    remedy = (
        f"install a pair from one source: pip install --force-reinstall 'torch=={Version(torch_version).public}' "
        f"'torchvision=={wanted}.*' (for CPUs alone: --index-url https://download.pytorch.org/whl/cpu)"
    )
    try:
        import torch
        import torchvision

        kept = torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
        assert kept.tolist() == [0]
    except Exception as error:
        yield Diagnosis(name, "broken", f"{found} do not work together ({_line(error)})", remedy)
        return
    vision = Version(vision_version)
    if Version(torch_version).major == 2 and f"{vision.major}.{vision.minor}" != wanted:
        yield Diagnosis(name, "problem", f"{found}: made for torchvision {wanted}", remedy)
    else:
        yield Diagnosis(name, "ok", f"{found}, tried together")


def _devices(wanted: str) -> Iterator[Diagnosis]:
    import torch

    from robustdml.devices import choose_device

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    yield Diagnosis("cpu", "ok", f"{cores} cores, {threads} threads; {_memory()}")
    yield _bfloat16(torch.device("cpu"))
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            free, whole = torch.cuda.mem_get_info(number)
            yield Diagnosis(
                f"cuda:{number}",
                "ok",
                f"{about.name}, compute capability {about.major}.{about.minor}, "
                f"{free / _GIB:.1f} of {whole / _GIB:.1f} GiB free",
            )
            yield _bfloat16(torch.device("cuda", number))
    elif any(Path("/dev").glob("nvidia[0-9]*")):
        yield Diagnosis(
            "cuda",
            "problem",
            f"there is an NVIDIA card and torch {torch.__version__} does not reach it (built for CUDA "
            f"{torch.version.cuda})",
            "compare 'nvidia-smi' with the CUDA version of torch: update the driver, or install a torch made for it "
            "(https://pytorch.org/get-started/locally)",
        )
    else:
        yield Diagnosis("cuda", "note", "no NVIDIA card: attacks run on the CPU, which takes longer")
    try:
        yield Diagnosis("device", "ok", f"'{wanted}' is {choose_device(wanted)}")
    except RobustDMLError as error:
        yield Diagnosis("device", "problem", str(error), "leave out --device, or name one of those above")


def _bfloat16(device: object) -> Diagnosis:
    """Whether training with ``--precision bf16`` works there: tried, and compared with what float32 gives."""
    import torch

    name = f"bf16 on {device}"
    try:
        ones = torch.ones(8, 8, device=device, dtype=torch.bfloat16)  # type: ignore[call-overload]
        works = float((ones @ ones)[0, 0]) == 8.0
    except RuntimeError as error:
        return Diagnosis(name, "note", f"not possible ({_line(error)})", "train with --precision fp32")
    return Diagnosis(name, "ok", "works") if works else Diagnosis(name, "problem", "wrong numbers", "--precision fp32")


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB of memory free"


def _extras() -> Iterator[Diagnosis]:
    try:
        needs = _required()
    except metadata.PackageNotFoundError:
        return
    for extra in (name for name in _extra_names() if name not in {"all", "dev", "docs"}):
        own = [need for need, belongs in needs if belongs == extra]
        missing = [need.name for need in own if _installed(need.name) is None]
        old = [need for need in own if (there := _installed(need.name)) and not need.specifier.contains(there, True)]
        if old:
            text = ", ".join(f"{need.name} {_installed(need.name)} (needed: {need.specifier})" for need in old)
            yield Diagnosis(f"extra {extra}", "problem", text, f"pip install -U 'robustdml[{extra}]'")
        elif missing:
            yield Diagnosis(
                f"extra {extra}", "note", f"not installed: {', '.join(missing)}", f"pip install 'robustdml[{extra}]'"
            )
        else:
            versions = ", ".join(f"{need.name} {_installed(need.name)}" for need in own)
            yield Diagnosis(f"extra {extra}", "ok", versions)


def _caches() -> Iterator[Diagnosis]:
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    hf_home = os.environ.get("HF_HOME", str(home / "huggingface"))
    places = (
        ("weights of torchvision", "TORCH_HOME", Path(os.environ.get("TORCH_HOME", home / "torch"))),
        ("weights of Hugging Face", "HF_HOME", Path(os.environ.get("HF_HUB_CACHE", f"{hf_home}/hub"))),
        ("temporary files", "TMPDIR", Path(tempfile.gettempdir())),
        ("working folder", "", Path.cwd()),
    )
    for name, variable, place in places:
        yield writable(
            name, place.expanduser(), f"set {variable} to a folder that you may write to" if variable else ""
        )


def writable(name: str, place: Path, remedy: str = "") -> Diagnosis:
    """Whether files can be written at a place, or where it is going to be made; tried, and taken away again."""
    there = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"robustdml")
        free = shutil.disk_usage(there).free
    except OSError as error:
        change = remedy or f"change to a folder that you may write to, or the rights of '{there}'"
        return Diagnosis(name, "problem", f"'{place}' cannot be written to ({error.strerror})", change)
    if free < _ROOM:
        return Diagnosis(
            name, "problem", f"'{place}' has {free / _GIB:.2f} GiB left", remedy or "make room on that disk"
        )
    return Diagnosis(name, "ok", f"'{place}', {free / _GIB:.0f} GiB free")


def _variables() -> Iterator[Diagnosis]:
    found = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    yield Diagnosis("environment variables", "ok", plain(", ".join(found)) or "none set that matters")
