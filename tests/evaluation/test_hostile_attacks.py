"""Attacks that do what they must not: all others have the records of a run without them, and the culprit is named."""

from __future__ import annotations

import gc
import locale
import logging
import os
import pickle
import random
import re
import resource
import signal
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from squares import QUIET, FakeAttack, SmallNet, make_dataset
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from robustdml.attacks import build_suite
from robustdml.evaluation import evaluate
from robustdml.evaluation import judge as judging
from robustdml.evaluation.attacking import queries
from robustdml.evaluation.attacking.apart import ApartAttack, possible, survives
from robustdml.evaluation.judge import Judge
from robustdml.evaluation.plan import Plan
from robustdml.evaluation.store import Store
from robustdml.retrieval import metrics
from robustdml.retrieval.metrics import METRICS
from robustdml.threat import ThreatModel

WITNESSES = "noise,margin,stax"


def weight(model):
    return next(model.parameters())


def every(kind):
    return [found for found in gc.get_objects() if isinstance(found, kind)]


def everywhere(change):
    """Done to every judge there is, as an attack finds it that looks around."""

    def hostile(model, references):
        for judge in every(Judge):
            change(judge)

    return hostile


def swap(holder, name, value):
    setattr(holder, name, value)


def replaced(model, references):
    model.module.head.weight = nn.Parameter(torch.zeros_like(model.module.head.weight))


def by_numpy(model, references):
    weight(model).detach().numpy()[...] = 0.0


def by_storage(model, references):
    weight(model).untyped_storage().fill_(0)


class Doubled(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


HELD = []


def entered(context):
    """A block that is begun and never ended."""

    def hostile(model, references):
        HELD.append(context())
        HELD[-1].__enter__()

    return hostile


def limited(model, references):
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few - 1, most))


def code_of(function, other):
    def hostile(model, references):
        function.__code__ = other.__code__

    return hostile


#: By what they are named in the reason: (model, references) -> None.
INSIDE = {
    "weights in place": lambda m, r: weight(m).data.add_(1.0),
    "weights zeroed": lambda m, r: weight(m).data.zero_(),
    "weights by NumPy": by_numpy,
    "weights by storage": by_storage,
    "weights set": lambda m, r: swap(weight(m), "data", torch.zeros_like(weight(m))),
    "weights replaced": replaced,
    "a weight removed": lambda m, r: m.module.conv._parameters.__setitem__("bias", None),
    "buffers in place": lambda m, r: m.module.norm.running_mean.data.add_(1.0),
    "buffers set": lambda m, r: swap(m.module.norm, "running_var", torch.ones(12)),
    "a module exchanged": lambda m, r: swap(m.module, "head", nn.Linear(12, 8)),
    "the class": lambda m, r: swap(m.module.head, "__class__", nn.Identity),
    "the class's forward": lambda m, r: swap(SmallNet, "forward", lambda self, x: x.flatten(1)[:, :8]),
    "the forward": lambda m, r: swap(m.module, "forward", lambda x: x.flatten(1)[:, :8]),
    "a hook": lambda m, r: m.module.head.register_forward_hook(lambda *_: None),
    "a pre-hook": lambda m, r: m.module.register_forward_pre_hook(lambda *_: None),
    "a hook of all modules": lambda m, r: nn.modules.module.register_module_forward_hook(lambda *_: None),
    "the judge's weights": everywhere(lambda judge: weight(judge._own).data.zero_()),
    "the judge's forward": everywhere(lambda judge: swap(judge._own.module, "forward", lambda x: x.flatten(1)[:, :8])),
    "the judge's gallery": everywhere(lambda judge: judge.gallery_embeddings.fill(0.5)),
    "the judge's queries": everywhere(lambda judge: judge.query_embeddings.__setitem__(0, 0.5)),
    "the gallery": lambda m, r: r.gallery.embeddings.zero_(),
    "the gallery's labels": lambda m, r: r.gallery.labels.zero_(),
    "the gallery's ids": lambda m, r: r.gallery.ids.add_(1),
    "the default type": lambda m, r: torch.set_default_dtype(torch.float64),
    "the default device": lambda m, r: torch.set_default_device("meta"),
    "gradients off": lambda m, r: torch.set_grad_enabled(False),
    "autocast": lambda m, r: torch.set_autocast_enabled("cpu", True),
    "deterministic algorithms": lambda m, r: torch.use_deterministic_algorithms(True),
    "precision of products": lambda m, r: torch.set_float32_matmul_precision("medium"),
    "flushed numbers": lambda m, r: torch.set_flush_denormal(True),
    "cuDNN": lambda m, r: swap(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
    "anomaly": lambda m, r: torch.autograd.set_detect_anomaly(True),
    "chdir": lambda m, r: os.chdir("/"),
    "a signal handler": lambda m, r: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "an alarm": lambda m, r: signal.alarm(600),
    "a timer": lambda m, r: signal.setitimer(signal.ITIMER_PROF, 600),
    "tracing": lambda m, r: sys.settrace(lambda *_: None),
    "profiling": lambda m, r: sys.setprofile(lambda *_: None),
    "no garbage collection": lambda m, r: gc.disable(),
    "the search path": lambda m, r: sys.path.insert(0, "/nowhere"),
    "the recursion limit": lambda m, r: sys.setrecursionlimit(5000),
    "stdout closed": lambda m, r: os.close(1),
    "stdout replaced": lambda m, r: swap(sys, "stdout", None),
    "a mode of functions": entered(Doubled),
    "a mode of operators": entered(Operators),
    "inference mode": entered(torch.inference_mode),
    "hooks of saved tensors": entered(lambda: torch.autograd.graph.saved_tensors_hooks(torch.zeros_like, lambda x: x)),
    "warned determinism": lambda m, r: torch.use_deterministic_algorithms(True, warn_only=True),
    "oneDNN": lambda m, r: swap(torch.backends.mkldnn, "enabled", False),
    "attention": lambda m, r: torch.backends.cuda.enable_math_sdp(False),
    "blocked signals": lambda m, r: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    "limits": limited,
    "the umask": lambda m, r: os.umask(0),
    "the hook of errors": lambda m, r: swap(sys, "excepthook", print),
    "the standard input": lambda m, r: swap(sys, "stdin", None),
    "thresholds of the garbage": lambda m, r: gc.set_threshold(1),
    "a judge's index": everywhere(lambda judge: swap(judge, "_index", None)),
    "places of the index": everywhere(lambda judge: judge._index._sizes.fill(2)),
    "another gallery of the judge": everywhere(
        lambda judge: swap(judge, "gallery_embeddings", np.ones_like(judge.gallery_embeddings))
    ),
    "another split": everywhere(lambda judge: swap(judge, "split", None)),
    "a method of the judge": everywhere(lambda judge: swap(judge, "records", lambda *_, **__: None)),
    "what is relevant": everywhere(lambda judge: judge._counts.fill(1)),
    "a setting of a layer": everywhere(lambda judge: swap(judge._own.module.norm, "eps", 1e9)),
    "a layer's stride": everywhere(lambda judge: swap(judge._own.module.conv, "stride", (5, 5))),
    "the store": lambda m, r: [swap(store, "write", lambda *_: None) for store in every(Store)],
    "a method that hides another": lambda m, r: swap(torch.Tensor, "add", lambda self, other: self),
    "a call that hides another": lambda m, r: swap(SmallNet, "__call__", lambda self, x: x.flatten(1)[:, :8]),
    "a name that hides a builtin": lambda m, r: swap(metrics, "len", lambda _: 1),
    "a table": lambda m, r: METRICS._entries.__setitem__("recall_at_1", METRICS["recall_at_2"]),
    "a constant": lambda m, r: swap(judging, "_LISTED", 0),
    "a module": lambda m, r: sys.modules.__setitem__("numpy", judging),
    "a class method": code_of(Judge.__dict__["of_embeddings"].__func__, lambda *_: None),
    "normalize": lambda m, r: swap(F, "normalize", lambda x, **_: x * 0),
    "torch's clone": lambda m, r: swap(torch, "isfinite", lambda x: x == x),
    "numpy": lambda m, r: swap(np, "concatenate", lambda *_: None),
    "the judge": lambda m, r: swap(Judge, "records", lambda *_, **__: None),
    "the budget": lambda m, r: swap(ThreatModel, "allows", lambda self, one, other: torch.ones(len(one)).bool()),
    "the projection": lambda m, r: swap(ThreatModel, "project", lambda self, one, other: one),
    "the recall": code_of(metrics._recall, lambda rank, relevant, counts: relevant[:, 0] * 0.0 + 1.0),
    "a function of the evaluation": lambda m, r: swap(queries, "run_attack", None),
    "SystemExit": lambda m, r: sys.exit(0),
    "exit": lambda m, r: exit(0),
    "a thread": lambda m, r: threading.Thread(target=time.sleep, args=(1.0,), daemon=True).start(),
}


def hostile(name, change):
    def attack(model, images):
        change(model, attack.references)
        return images

    class Hostile(FakeAttack):
        def __call__(self, model, images, references, *, seed):
            attack.references = references
            return super().__call__(model, images, references, seed=seed)

    return Hostile(attack, name=name)


def witnesses(out):
    plan = Plan.load(out)
    store = Store(out, plan.fingerprint)
    kept = {}
    for key in plan.cells("net"):
        if "(" in key.attack:
            kept[key.attack] = vars(store.read_all(key)) | {"seconds": 0}
    return kept


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory):
    out = tmp_path_factory.mktemp("peace") / "out"
    results = evaluate({"net": SmallNet()}, make_dataset(), build_suite(WITNESSES, "8/255"), out=out, options=QUIET)
    return results, witnesses(out)


def run_among(attacks, out, peaceful):
    """Run them before the witnesses, and say which failed how; the witnesses are as they are without."""
    suite = [*attacks, *build_suite(WITNESSES, "8/255")]
    before = Path.cwd(), torch.get_default_dtype(), sys.stdout, nn.Module.__call__, len(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of those that set what torch is giving up
        results = evaluate({"net": SmallNet()}, make_dataset(), suite, out=out, options=QUIET)
    assert (Path.cwd(), torch.get_default_dtype(), sys.stdout, nn.Module.__call__) == before[:4]
    expected, records = peaceful
    np.testing.assert_equal(witnesses(out), records)
    names = {each.name_ for each in attacks}
    assert [cell.score for cell in results.cells if cell.attack not in names] == [cell.score for cell in expected.cells]
    assert [worst.score for worst in results.worst] == [worst.score for worst in expected.worst]
    assert results.models[0].clean == expected.models[0].clean
    return {cell.attack: cell for cell in results.cells if cell.attack in names}, results


def test_attacks_that_change_what_is_not_theirs_spoil_no_other(tmp_path, peaceful):
    attacks = [hostile(name, change) for name, change in INSIDE.items()]
    for attack in attacks:
        object.__setattr__(attack, "name_", attack.name)
    found, results = run_among(attacks, tmp_path / "out", peaceful)
    believed = {name for name, cell in found.items() if not cell.unsound or cell.score}
    assert not believed
    assert {flag.attack for flag in results.flags if flag.slug == "unsound-attack"} == set(found)


#: What libraries do, and no number depends on: put back without a word. How each is read, and how changed.
RESTORED = {
    "environment variables": (lambda: dict(os.environ), lambda: os.environ.update(ROBUSTDML_TEST="1")),
    "the random state of torch": (lambda: torch.get_rng_state().tolist(), lambda: torch.manual_seed(99)),
    "the random state of NumPy": (lambda: np.random.get_state()[1].tolist(), lambda: np.random.seed(99)),
    "the random state of Python": (random.getstate, lambda: random.seed(99)),
    "errors of NumPy": (np.geterr, lambda: np.seterr(all="ignore")),
    "how NumPy prints": (np.get_printoptions, lambda: np.set_printoptions(precision=2)),
    "warning filters": (lambda: list(warnings.filters), lambda: warnings.simplefilter("ignore", ResourceWarning)),
    "the locale": (lambda: locale.setlocale(locale.LC_ALL), lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8")),
    "what is logged": (lambda: logging.root.manager.disable, lambda: logging.disable(logging.CRITICAL)),
    "threads of torch": (torch.get_num_threads, lambda: torch.set_num_threads(3)),
}


def test_what_libraries_change_is_put_back_without_a_word(tmp_path, peaceful):
    seen = {}

    def noted(name, change):
        def attack(model, references):
            change()
            seen[name] = RESTORED[name][0]()

        return attack

    attacks = [hostile(name, noted(name, change)) for name, (_, change) in RESTORED.items()]
    for attack in attacks:
        object.__setattr__(attack, "name_", attack.name)
    before = {name: read() for name, (read, _) in RESTORED.items()}
    found, _ = run_among(attacks, tmp_path / "out", peaceful)
    assert {name: cell.reason for name, cell in found.items()} == dict.fromkeys(RESTORED)
    assert {name: read() for name, (read, _) in RESTORED.items()} == before
    assert not [name for name in RESTORED if seen[name] == before[name]]  # each did change something


def kill(number):
    return lambda m, r: os.kill(os.getpid(), number)


def fork_and_stay(model, references):
    if os.fork() == 0:
        time.sleep(600)


def grow(model, references):
    held = []
    while True:
        held.append(np.ones(1 << 22))


def spin(model, references):
    while True:
        pass


def reach(model, references):
    """All that an attack within the process would be caught at, at once."""
    for judge in every(Judge):
        judge.gallery_embeddings.fill(0.5)
    weight(model).data.zero_()
    Judge.records = None
    torch.set_default_dtype(torch.float64)
    os.chdir("/")


def end_after_the_answer(model, references):
    os._exit = lambda status: os.abort()


def unprintable(model, references):
    raise ValueError("\ud800 \x1b[31m no \n text")


#: What is done in a process of its own, and how that is told.
APART = {
    "sys.exit": (lambda m, r: sys.exit(0), r"tried to end the program \(SystemExit\)"),
    "os._exit 0": (lambda m, r: os._exit(0), r"without an answer \(exit code 0\)"),
    "os._exit 3": (lambda m, r: os._exit(3), r"without an answer \(exit code 3\)"),
    "KeyboardInterrupt": (lambda m, r: (_ for _ in ()).throw(KeyboardInterrupt), "tried to end the program"),
    **{
        f"signal {number.name}": (kill(number), rf"without an answer \(signal {int(number)} \({number.name}\)\)")
        for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGABRT)
    },
    "abort": (lambda m, r: os.abort(), r"without an answer \(signal 6"),
    "abort after the answer": (end_after_the_answer, r"without an answer \(signal 6"),
    "its group": (lambda m, r: os.killpg(0, signal.SIGKILL), r"without an answer \(signal 9"),
    "closed files": (lambda m, r: os.closerange(0, 256), "without an answer"),
    "a hang": (spin, "more than 1 seconds for one call"),
    "sleep": (lambda m, r: time.sleep(60), "more than 1 seconds for one call"),
    # Another thread of it may come to the end before all have stopped.
    "stopped": (kill(signal.SIGSTOP), r"more than 1 seconds for one call|without an answer \(signal 9"),
    "memory": (grow, "MemoryError|more memory than there is|allocate memory"),
    "recursion": (lambda m, r: (lambda f: f(f))(lambda f: f(f)), "RecursionError"),
    "an error": (unprintable, "ValueError"),
}
#: What harms nobody when it is done there.
HARMLESS = {
    "everything at once": reach,
    "a process that stays": fork_and_stay,
    "threads": lambda m, r: threading.Thread(target=time.sleep, args=(600,)).start(),
    "closed stdout": lambda m, r: os.close(1),
}


@pytest.mark.skipif(not possible(torch.device("cpu")), reason="processes are copied on Linux, and beside no GPU")
def test_attacks_in_a_process_of_their_own_end_alone(tmp_path, peaceful):
    attacks = []
    for name, change in {**{name: change for name, (change, _) in APART.items()}, **HARMLESS}.items():
        inside = hostile(name, change)
        # On a busy machine the others take their time to get to their end.
        longest = 1.0 if name in {"a hang", "sleep", "stopped"} else 60.0
        attacks.append(ApartAttack(inside, longest=longest, memory=256 << 20))
        attacks[-1].name_ = name
    suite = [*attacks, *build_suite(WITNESSES, "8/255")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, where all there is is looked at
        results = evaluate({"net": SmallNet()}, make_dataset(), suite, out=tmp_path / "out", options=QUIET)
    np.testing.assert_equal(witnesses(tmp_path / "out"), peaceful[1])
    found = {cell.attack: cell for cell in results.cells}
    for name, (_, pattern) in APART.items():
        assert found[name].status == "failed", name
        assert re.search(pattern, found[name].reason), (name, found[name].reason)
    assert {name: found[name].reason for name in HARMLESS} == dict.fromkeys(HARMLESS)


def runs(process):
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not possible(torch.device("cpu")), reason="processes are copied on Linux, and beside no GPU")
def test_a_process_of_its_own_does_not_outlive_the_one_that_waits_for_it():
    reading, writing = os.pipe()

    def hangs(model, references):
        os.write(writing, b"%d" % os.getpid())
        time.sleep(60)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a copy does not have
        waiting = os.fork()
    if waiting == 0:
        ApartAttack(hostile("hangs", hangs))(SmallNet(), torch.zeros(1, 3, 10, 10), None, seed=0)
        os._exit(0)
    child = int(os.read(reading, 20))
    os.kill(waiting, signal.SIGKILL)
    os.waitpid(waiting, 0)
    deadline = time.monotonic() + 30
    while runs(child):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.01)
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(not possible(torch.device("cpu")), reason="processes are copied on Linux, and beside no GPU")
def test_an_honest_attack_has_the_same_records_and_costs_in_a_process_of_its_own(tmp_path, peaceful):
    suite = [ApartAttack(attack) for attack in build_suite(WITNESSES, "8/255")]
    evaluate({"net": SmallNet()}, make_dataset(), suite, out=tmp_path / "out", options=QUIET)
    np.testing.assert_equal(witnesses(tmp_path / "out"), peaceful[1])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (partial(os._exit, 0), r"without an answer \(exit code 0\)"),
        (partial(os._exit, 3), r"without an answer \(exit code 3\)"),
        (partial(time.sleep, 60), "more than 2 seconds"),
        (partial(sys.exit, 0), "^$"),
        (partial(int, "x"), "^$"),
        (partial(sum, [1]), "^$"),
        (lambda: os._exit(0), "^$"),  # which cannot be sent
    ],
)
def test_where_no_process_can_be_copied_attacks_are_built_in_a_new_one_first(monkeypatch, build, said):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert re.search(said, survives(build, longest=2.0 if "2 seconds" in said else 60.0))


def test_what_builds_a_suite_can_be_sent_to_a_new_process():
    build = pickle.loads(pickle.dumps(partial(build_suite, "noise", "8/255", "quick")))
    assert [attack.entry().name for attack in build()] == ["noise"]
