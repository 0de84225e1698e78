"""Command lines and files that are wrong in some way, drawn by seed: of every command, option and kind of file.

`CASES` has one function for each kind. What a command line of a kind must end with is known by how it was made:
2 where what was given cannot be; where only a file was damaged by chance, the damage may also be none that matters.
"""

from __future__ import annotations

import json
import random
import shutil
import string
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from malformed_drawing import Drawing
from malformed_world import TRAIN

from robustdml.attacks import ATTACKS
from robustdml.cli import main
from robustdml.files import sealed
from robustdml.training.losses import LOSSES, MINERS

REFUSED = frozenset({2})
#: Where chance may have changed nothing that counts, or something that a command reports as its finding.
ANY = frozenset({0, 2, 3, 4})


@dataclass(frozen=True)
class Case:
    """A command line and what it may end with.

    Args:
        arguments: of ``robustdml``.
        codes: exit codes, of which one is right.
        out: the only place where it may write.
    """

    arguments: list[str]
    codes: frozenset[int]
    out: Path


#: Texts that are no name of anything, no number, no budget and no path of a file that is there.
TEXTS = [
    "", " ", "\0", "a\0b", "\udcff\udc80", "\ud800", "x" * 5000, "e\u0301" * 300, "\x1b[31mred\x1b[0m", "\x9b2J",
    "\u202egnp", "(" * 3000, "[" * 300 + "]" * 300, "a" * 256, "-1", "--", "nan", "../../../etc/passwd", "/dev/zero",
    "/dev/stdin", "/proc/self/environ", "/proc/self/mem", "%s%n%x", "{0.__class__}", "=1+1",
    "@SUM(1)", "<script>alert(1)</script>",
    "a\nb\r\nError: c", "~nobody-of-that-name/x", "http://127.0.0.1:9/x", "file:///etc/passwd", "a:b:c", "a=b=c=",
    "None", "__import__('os').system('true')", "lambda: 0", "f(x=(1,", "f(x=1)(y=2)", "f(**{'a': 1})", "f(*a)",
    "f(a=1, a=2)", "9" * 5000, "\N{ARABIC-INDIC DIGIT THREE}", "\N{FULLWIDTH DIGIT ONE}", ",",
    ",,,", ";", "'", '"', "\\", "`true`",
    "$(true)", "a" + "/b" * 3000, "sys:exit", "os:_exit", "builtins:exit", "builtins:breakpoint", "builtins:input",
    "robustdml:nothing", "robustdml.nothing:x", "no_such_module:build", ":", ":x", "x:", "timm:", "timm:no_such",
    "hf:", "hf:../..", "torchvision:", "torchvision:no_such", "open_clip:", "open_clip:a/b",
]  # fmt: skip
NO_INTEGERS = ["", "a", "1.5", "nan", "inf", "-inf", "1e3", "0x10", "1 2", "--", "1" * 5000, "\0", "\udcff", "None"]
NO_COUNTS = ["-1", "-9223372036854775809", str(2**31), str(2**63), str(2**64), "9" * 30, "9" * 400]
NO_NUMBERS = ["", "a", "1,5", "--", "0x1p3", "\0", "\udcff", "None", "1/0", "8 / 255 / 2", "." * 2000]
NO_SIZES = ["nan", "inf", "-inf", "-1", "-1e-9", "1e308", "1e400", "-1e400"]


def commands() -> dict[str, click.Command]:
    """Every command, by name."""
    return dict(main.commands)


class Draw(Drawing):
    """A case's own random choices, its folder, and the world that it may read."""

    def __init__(self, seed: str, world: Path, folder: Path) -> None:
        super().__init__(random.Random(seed))
        self.world, self.folder = world, folder
        self.out = folder / "out"

    def base(self, command: str) -> list[str]:
        """A command line that is in order, and short where it runs."""
        data = ["--data", "folder", "--root", str(self.world / "tree")]
        run, cpu = str(self.world / "run"), ["--device", "cpu", "--quiet"]
        known: dict[str, list[str]] = {
            "train": [*data, "--out", str(self.out), *TRAIN],
            "check": [run, *data, *cpu],
            "evaluate": [run, *data, "--attacks", "noise", "--out", str(self.out), *cpu],
            "report": [str(self.world / "eval"), "--out", str(self.out / "report.html")],
            "compare": [str(self.world / "eval"), str(self.world / "other")],
            "verify": [str(self.world / "eval"), "--model", run, *data, "--device", "cpu"],
            "export": [run, "--out", str(self.out / "w.safetensors")],
            "list": ["attacks"],
            "reproduce": ["mdprop", "no-such-row", "--miniature", "--out", str(self.out), *cpu],
            "doctor": ["--device", "cpu"],
            "demo": ["--quick", "--out", str(self.out), "--device", "no-such-device"],
        }
        return [command, *known.get(command, [])]

    def copied(self, name: str) -> Path:
        """A copy of a folder of the world, where it may be damaged and written."""
        return Path(shutil.copytree(self.world / name, self.out))


def _changed_option(arguments: list[str], option: click.Parameter, value: str) -> list[str]:
    """A command line with another value of one option: after the first, as the last one counts."""
    return [*arguments, f"{option.opts[0]}={value}"]


#: Options whose text is looked at only where another is given, or may be anything.
_OUTPUTS = {"out", "cards", "markdown", "junit", "csv"}
_FREE = {"branch", "arch", "root", *_OUTPUTS}


def option(draw: Draw, command: str) -> Case:
    """A wrong value of an option, with all else in order."""
    options = [part for part in commands()[command].params if isinstance(part, click.Option) and not part.is_flag]
    if not options:
        return positional(draw, command)
    chosen = draw.one(options)
    kind, codes = chosen.type, REFUSED
    if isinstance(kind, click.Choice):
        value = draw.one([text for text in TEXTS if text not in kind.choices])
    elif isinstance(kind, type(click.INT)):
        value = draw.one(NO_INTEGERS + NO_COUNTS)
    elif isinstance(kind, type(click.FLOAT)):
        value = draw.one(NO_NUMBERS + NO_SIZES)
    else:
        value = draw.one(TEXTS)
        if chosen.name in _OUTPUTS and value[:1] not in {"/", "~", ""} and "\0" not in value:
            value = f"out/{value.replace('..', '')}"  # where it may write
        if chosen.name in _FREE or (chosen.name in {"data", "models"} and value in {"", " "}):
            codes = ANY
    if chosen.name in {"attack_time_limit", "clip_gradient"} and value in {"inf", "1e308", "1e400"}:
        codes = ANY
    if command == "doctor":  # says of everything how it is, and of nothing that it cannot be looked at
        codes = ANY
    return Case(_changed_option(draw.base(command), chosen, value), codes, draw.out)


def positional(draw: Draw, command: str) -> Case:
    """A wrong argument, too many of them, none at all, or an option that there is not."""
    base, text = draw.base(command), draw.one(TEXTS)
    arguments = [part for part in commands()[command].params if isinstance(part, click.Argument)]
    match draw.random.randrange(4):
        case 0 if arguments:
            base[1:2] = ["--", text] if len(base) == 2 else []
            base = [command, *base[2 if arguments[0].nargs == 1 and len(arguments) == 2 else 1 :], "--", text]
        case 1:
            base = [command, draw.one(["--no-such-option", "--nope=1", "-q", f"--{text}"])]
        case 2 if any(part.required for part in commands()[command].params):
            base = [command]
        case _:
            base += ["--", text, *draw.random.choices(TEXTS, k=draw.one([1, 400]))]
    return Case(base, REFUSED, draw.out)


def group(draw: Draw, command: str) -> Case:
    """No such command."""
    return Case([draw.one(TEXTS[1:]).replace("--", "-x") or "x", *draw.base(command)[1:]], REFUSED, draw.out)


def _value(draw: Draw) -> str:
    return draw.one(
        [
            "-1", "0", "1e20", "1e308", "1e-320", "10**9", "99999999999999999999", "nan", "inf", "''", "'a'", "None",
            "[]", "{}", "[1]*9", "(1,)", "b'x'", "True", "1j", "8/0", "8/255/2", "-8/255", "...", "'\\x00'",
            "'\\ud800'", "[" * 80 + "]" * 80, "-" * 400 + "1", "x" * 3000, "'" + "y" * 3000 + "'", "1 if 1 else 2",
            "f(1)", "a.b", "2**99999",
        ]
    )  # fmt: skip


def spec(draw: Draw, command: str) -> Case:
    """An attack's spec with a wrong value or damaged text; or one that is in order, of data that are not there."""
    name = draw.one(ATTACKS)
    known = [*ATTACKS[name].parameters(None), "nope", "goal", "eps"]
    text = f"{name}({', '.join(f'{key}={_value(draw)}' for key in draw.random.sample(known, draw.one([1, 2])))})"
    if draw.random.random() < 0.3:
        text = draw.damaged(text.encode()).decode("utf-8", "surrogateescape")
    base = ["evaluate", str(draw.world / "run"), "--data", "folder", "--root", str(draw.folder / "absent")]
    return Case([*base, f"--attacks={text}", "--out", str(draw.out), "--quiet"], REFUSED, draw.out)


def loss(draw: Draw, command: str) -> Case:
    """A loss or a miner with a wrong value, of data that are not there."""
    which, registry = draw.one([("loss", LOSSES), ("miner", MINERS)])
    name = draw.one(registry)
    keys = ["margin", "scale", "epsilon", "nope", "alpha", "type_of_triplets", "num_classes", "base", "dims"]
    if which == "loss":
        keys += list(registry[name].parameters())
    text = f"{name}({', '.join(f'{key}={_value(draw)}' for key in draw.random.sample(sorted(set(keys)), 2))})"
    base = ["train", "--data", "folder", "--root", str(draw.folder / "absent"), "--out", str(draw.out), *TRAIN]
    return Case([*base, f"--{which}={text}"], REFUSED, draw.out)


def loss_on_data(draw: Draw, command: str) -> Case:
    """The same of data that are there: what the command line lets pass must not break the training."""
    case = loss(draw, command)
    here = [str(draw.world / "tree") if word == str(draw.folder / "absent") else word for word in case.arguments]
    return Case(here, ANY, draw.out)


def panel(draw: Draw, command: str) -> Case:
    """A wrong panel, curve or bar."""
    word = draw.one(["sigma", "samples", "alpha", "vote", "nope", ""])
    option, text = draw.one(
        [
            ("--certify", f"{word}={_value(draw)}"),
            ("--certify", f"sigma=0.25,{word}={_value(draw)},"),
            ("--curve", f"linf,{_value(draw)}"),
            ("--fail-under", f"worst:recall@1={_value(draw)}"),
            ("--fail-under", f"worst@{_value(draw)}:{_value(draw)}=0.3"),
            ("--eps", f"8/255,{_value(draw)}"),
            ("--eps", f"{_value(draw)}/normalised"),
            ("--eps", f"1/255:{_value(draw)}:1/255"),
            ("--image-size", f"16x{_value(draw)}"),
            ("--mean", f"0.5,{_value(draw)},0.5"),
        ]
    )
    return Case(
        [*draw.base("evaluate")[:-3], "--root", str(draw.folder / "absent"), f"{option}={text}"], REFUSED, draw.out
    )


def factory(draw: Draw, command: str) -> Case:
    """Code of the user's that does what no factory may do."""
    names = ["exits", "ends", "raises", "surrogate", "text", "nothing", "meta", "lazy", "absent", "Text"]
    source = f"{draw.world / 'factories.py'}:{draw.one(names)}"
    base = draw.base(draw.one(["evaluate", "check"]))
    base[1] = source
    if draw.random.random() < 0.3:
        base = [*draw.base("train"), f"--backbone={source}"]
    return Case(base, REFUSED, draw.out)


def results(draw: Draw, command: str) -> Case:
    """A damaged results.json, with its checksum made anew or not."""
    folder = draw.copied("eval")
    path = folder / "results.json"
    _damage_json(draw, path)
    verb = draw.one(["report", "report", "compare", "verify"])
    words = {
        "report": [
            str(folder),
            *draw.one([[], ["--cards", str(draw.out / "cards"), "--junit", str(draw.out / "j.xml")]]),
        ],
        "compare": [str(draw.world / "eval"), str(folder)],
        "verify": [str(folder)],
    }
    return Case([verb, *words[verb]], ANY, draw.out)


def _damage_json(draw: Draw, path: Path) -> None:
    data = path.read_bytes()
    match draw.random.randrange(8):
        case 0:
            data = draw.damaged(data)
        case 1:
            nested = draw.one([200, 100_000])
            data = data.replace(b"[", b"[" * nested, 1).replace(b"]", b"]" * nested, 1)
        case 2:
            data = draw.one(
                [b"", b"null", b"[]", b"{}", b'"x"', b"0", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf" + data, b"{" * 100_000]
            )
        case _:
            content = json.loads(data)
            content.pop("checksum", None)
            content = draw.rewritten(content)
            written = sealed(content) if draw.random.random() < 0.8 else json.dumps(content)
            data = written.encode("utf-8", "surrogatepass")
    path.write_bytes(data)


def run_files(draw: Draw, command: str) -> Case:
    """A damaged file of an evaluation that is gone on with, reported, or verified."""
    folder = draw.copied("eval")
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".json", ".parquet"})
    path = draw.one([found for found in files if found.name != "results.json"])
    if path.suffix == ".json":
        _damage_json(draw, path)
    else:
        path.write_bytes(draw.damaged(path.read_bytes()))
    verb = draw.one(["evaluate", "evaluate", "report", "verify"])
    if verb == "evaluate":
        return Case(draw.base(verb), ANY, draw.out)
    if verb == "report":
        (folder / "results.json").unlink()
    return Case([verb, str(folder)], ANY, draw.out)


def checkpoint(draw: Draw, command: str) -> Case:
    """A damaged model.json, weights or state of a training."""
    folder = draw.copied("run")
    path = folder / draw.one(
        ["model.json", "model.json", "model.safetensors", "state.pt", "spec.json", "metrics.jsonl"]
    )
    if not path.is_file():
        path = folder / "model.json"
    if path.suffix == ".json":
        _damage_json(draw, path)
    elif path.suffix == ".safetensors" and draw.random.random() < 0.5:
        path.write_bytes(_lying_header(draw, path.read_bytes()))
    else:
        path.write_bytes(draw.damaged(path.read_bytes()))
    verb = draw.one(["export", "check", "train"])
    words = {
        "export": ["export", str(folder), "--out", str(draw.out / "w.safetensors")],
        "check": ["check", str(folder), *draw.base("check")[2:]],
        "train": draw.base("train"),
    }
    return Case(words[verb], ANY, draw.out)


def _lying_header(draw: Draw, data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    match draw.random.randrange(4):
        case 0:
            return struct.pack("<Q", draw.one([0, 1, 2**31, 2**63, length * 2])) + data[8:]
        case 1:
            written = json.dumps(draw.rewritten(header)).encode("utf-8", "surrogatepass")
        case 2:
            first = draw.one([key for key in header if key != "__metadata__"])
            header[first]["shape"] = draw.one([[2**40, 2**40], [-1], [0], [1] * 5000, [2**62]])
            written = json.dumps(header).encode()
        case _:
            first = draw.one([key for key in header if key != "__metadata__"])
            header[first]["data_offsets"] = draw.one([[0, 2**62], [8, 0], [-1, 4], [0, 0]])
            written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + data[8 + length :]


_RECIPE = """
summary = "mine"
[train]
epochs = 1
eps = "2/255"
loss = "multisimilarity"
[[branch]]
kind = "clean"
[[branch]]
kind = "mtax"
part = [0.0, 0.5]
targets = 2
"""


def recipe(draw: Draw, command: str) -> Case:
    """A recipe with a wrong value, a damaged one, or what is no recipe."""
    file = draw.folder / "recipe.toml"
    key = draw.one(
        ["epochs", "eps", "loss", "backbone", "embedding_dim", "seed", "miner", "learning_rate", "weight_decay"]
    )
    value = draw.one(
        [
            "-1", "1e308", "nan", "inf", "99999999999999999999", "''", "'x'", "[]", "{}", "true", "2026-01-01",
            "'\\u0000'", "[" * 2000 + "]" * 2000, "'" + "z" * 9000 + "'", "'sys:exit'", "'builtins:exit'",
            "9" * 5000, "[[[1]]]",
        ]
    )  # fmt: skip
    codes = REFUSED
    match draw.random.randrange(4):
        case 0:
            text = (
                _RECIPE.replace("epochs = 1", f"{key} = {value}") if key != "eps" else _RECIPE.replace('"2/255"', value)
            )
            codes = ANY if key == "weight_decay" else REFUSED
            if key in {"loss", "eps"}:
                text = _RECIPE.replace('"2/255"' if key == "eps" else '"multisimilarity"', value)
            data = text.encode()
        case 1:
            branch = draw.one(["kind", "part", "targets", "eps", "steps", "eps_factor", "batchnorm", "nope"])
            data, codes = f"{_RECIPE}{branch} = {value}\n".encode(), ANY
            codes = REFUSED if branch in {"kind", "part", "targets", "nope"} else ANY
        case 2:
            data, codes = draw.damaged(_RECIPE.encode()), ANY
        case _:
            data = draw.one(
                [
                    b"\xff\xfe", b"a.b.c=1", b"[train", b"\0", b"[" * 50000, b"x=" + b"[" * 9000,
                    b"a." * 9000 + b"b=1", b"[[branch]]\n" * 30000, b"[[branch]]\n" * 5, b"[branch]\nkind='clean'",
                    b"train=3", b"branch=[1]", b"[[branch]]\nkind='clean'\n" * 2,
                    b"summary = 3\n[[branch]]\nkind='sys:exit'",
                ]
            )  # fmt: skip
    file.write_bytes(data)
    base = [word for word in draw.base("train") if word not in {"--method", "st"}]
    for name in ("--epochs", "--backbone"):
        place = base.index(name)
        del base[place : place + 2]
    # What is left of a damaged one may be in order, and would train for its usual epochs.
    short = [] if codes is REFUSED else ["--epochs", "1"]
    more = ["--recipe", str(file), "--validation-classes", "0", "--batch-size", "18", *short]
    return Case([*base, *more], codes, draw.out)


def manifest(draw: Draw, command: str) -> Case:
    """A table of images with a wrong value, of another kind, or damaged."""
    tree = draw.world / "tree"
    rows = []
    for path in sorted(tree.rglob("*.png")):
        test = path.parts[-3] == "test"
        rows.append([str(path), path.parts[-2], "validation" if test else "train", str(test), str(test)])
    column = draw.random.randrange(5)
    value = draw.one(
        [
            "", "\0", "a\0b", "/dev/zero", "/dev/stdin", "/proc/self/environ", "/proc/self/mem", "..", "/",
            "x" * 5000, "=1+1", "nan", "-1", "9" * 400, "\x1b[31m", "../../../../etc/passwd", str(tree),
            "http://127.0.0.1/x.png", "~", "maybe",
        ]
    )  # fmt: skip
    codes = REFUSED
    if column == 1:
        codes = ANY
    rows[-1 if column > 2 else 0][column] = value
    suffix, mark = draw.one([(".csv", ","), (".tsv", "\t")])
    text = "\n".join(mark.join(row) for row in [["path", "label", "split", "is_query", "is_gallery"], *rows])
    data = text.encode()
    match draw.random.randrange(4):
        case 0:
            data, codes = draw.damaged(data), ANY
        case 1:
            head, _, body = text.partition("\n")
            data, codes = (
                draw.one(
                    [
                        f"{head}\n", "", "path\n", f"{head},{head}\n{body}", body, f"x{mark}{head}\n{body}",
                        head.upper() + "\n", f"{head}\n{'a' * 200_000}", "\0" * 1000, '"' * 999, f'{head}\n"{body}',
                        f"{head}{mark}x_1\n{body}",
                    ]
                ).encode(),
                ANY,
            )  # fmt: skip
        case 2 if draw.random.random() < 0.4:
            suffix, data, codes = ".parquet", draw.damaged(b"PAR1" + data + b"PAR1"), REFUSED
    file = draw.folder / f"table{suffix}"
    file.write_bytes(data)
    verb = draw.one(["check", "train", "evaluate"])
    base = draw.base(verb)
    place = base.index("--data")
    base[place : place + 4] = ["--data", str(file)]
    return Case(base, codes, draw.out)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def images(draw: Draw, command: str) -> Case:
    """A folder of images of which one is none, or is something that is no file."""
    root = Path(shutil.copytree(draw.world / "tree", draw.folder / "tree"))
    verb = draw.one(["check", "train", "evaluate"])
    path = draw.one(sorted((root / ("train" if verb == "train" else "test")).rglob("*.png")))
    before = path.read_bytes()
    path.unlink()
    codes = ANY
    match draw.random.randrange(8):
        case 0:
            header = struct.pack(
                ">IIBBBBB", draw.one([2**31 - 1, 100_000, 0]), draw.one([2**31 - 1, 100_000, 0]), 8, 2, 0, 0, 0
            )
            body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + _chunk(b"IEND", b"")
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
            codes = REFUSED
        case 1:
            path.symlink_to(
                draw.one(["/dev/zero", "/proc/self/environ", "/proc/self/mem", "/dev/stdin", "nowhere", path.name])
            )
            codes = ANY
        case 2:
            path.mkdir()
        case 3:
            path.with_name(
                draw.one([b"\xff\xfe.png", b"\x1b[31m.png", b"a\nb.png", b"=1+1.png"]).decode(
                    "utf-8", "surrogateescape"
                )
            ).write_bytes(before)
        case 4:
            path.write_bytes(draw.one([b"", b"GIF89a", b"P6 99999 99999 255\n", b"<svg/>", b"%PDF", b"\x80\x04K\x01."]))
            codes = REFUSED
        case _:
            path.write_bytes(draw.damaged(before))
    base = draw.base(verb)
    base[base.index("--root") + 1] = str(root)
    return Case(base, codes, draw.out)


def tangle(draw: Draw, command: str) -> Case:
    """A command line that was in order, with words lost, doubled, swapped or damaged."""
    words = draw.base(command)
    if command in {"demo", "reproduce"}:
        return option(draw, command)
    for _ in range(draw.one([1, 2, 4])):
        place = draw.random.randrange(1, len(words)) if len(words) > 1 else 0
        match draw.random.randrange(4):
            case 0:
                del words[place:][:1], words[place : place + 1]
            case 1:
                words.insert(place, draw.one(TEXTS))
            case 2:
                words.insert(place, words[draw.random.randrange(len(words))])
            case _:
                mark = draw.one(string.punctuation + "\0\udcff")
                words[place : place + 1] = [word[:2] + mark + word[2:] for word in words[place : place + 1]]
        if len(words) < 2:
            break
    # Where a word of --out was lost, what is written goes elsewhere, as was asked for.
    if words and not {"--out", str(draw.out)} <= set(words):
        return option(draw, command)
    return Case([command, *words[1:]], ANY, draw.out)


Kind = Callable[[Draw, str], Case]
#: Options first, which are most of what can be said; each kind so often in a round.
CASES: list[Kind] = [
    *[option] * 10, *[positional] * 3, group, *[spec] * 5, *[loss] * 3, loss_on_data, *[panel] * 3, factory,
    *[results] * 5, *[run_files] * 3, *[checkpoint] * 3, *[recipe] * 3, *[manifest] * 3, *[images] * 2, tangle,
]  # fmt: skip


def make(seed: int, number: int, world: Path, folder: Path) -> Case:
    """Case ``number`` of a seed; its files are written into ``folder``."""
    kinds, names = random.Random(seed).sample(CASES, len(CASES)), sorted(commands())
    kind = kinds[number % len(kinds)]
    folder.mkdir(parents=True)
    return kind(Draw(f"{seed} {number}", world, folder), names[number % len(names)])
