"""Values that are too large, or no values, are refused by name before any data are read."""

from __future__ import annotations

import pytest
from command_line import cli, refused


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["--epochs", "100001"], "epochs=100001 must be at most 100000"),
        (["--batch-size", "1000001"], "batch_size=1000001 must be at most 1000000"),
        (["--attack-steps", "10001"], "attack_steps=10001 must be at most 10000"),
        (["--targets", "10001"], "targets=10001 must be at most 10000"),
        (["--embedding-dim", "65537"], "embedding_dim=65537 must be at most 65536"),
        (["--seed", "-1"], "seed=-1 must be at least 0"),
        (["--seed", str(2**63)], "seed=9223372036854775808 must be at most 9223372036854775807"),
        (["--weight-decay", "1e308"], r"weight_decay=1e\+308 must be a number from 0 to 1e\+30"),
        (["--loss-weight-decay", "nan"], "loss_weight_decay=nan must be a number from 0"),
        (["--lr", "1e308"], "learning_rate=1e.308 must be a number above 0, of at most"),
        (["--clip-gradient", "inf"], "clip_gradient=inf must be a number from 0"),
        (["--eps", "1e-320"], "eps 1e-320 is below 1e-06"),
        (["--device", "meta"], "device 'meta' cannot be used .*: use cpu or auto"),
        (["--device", "privateuseone"], "device 'privateuseone' cannot be used"),
        (["--device", "cuda:999"], "device 'cuda:999' cannot be used"),
        (["--loss", "arcface(scale=a)"], r"'arcface\(scale=a\)' (cannot be built|fails on a batch)"),
        (["--loss", "triplet(margin=nan)"], "margin='nan'|margin=nan|cannot be built|fails on a batch"),
        (
            ["--loss", "contrastive(pos_margin=1e20)"],
            r"pos_margin=1e\+20 must be a number of at most 1,000,000 in size",
        ),
        (["--loss", "s2sd(dims=99999999)"], "must be up to 16 dimensions of at most 65,536 each"),
        (["--miner", "BatchEasyHardMiner(pos_strategy=nothing)"], "cannot be built|fails on a batch"),
        (["--backbone", "resnet-tinny"], "unknown backbone"),
    ],
)
def test_train(tmp_path, words, pattern):
    command = ("train", "--data", "folder", "--root", tmp_path / "absent", "--out", tmp_path / "run")
    refused(cli(*command, *words), pattern)


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["--attacks", "pgd(steps=1e20)"], "steps=1e.20 must be a whole number"),
        (["--attacks", "pgd(steps=1000001)"], "steps=1000001 must be a number of at most 1,000,000"),
        (["--attacks", "mtax(targets=10001)"], "at least one target, and at most 10000"),
        (["--attacks", "pgd(norm=l2, eps=1e300)"], "eps 1e.300 must be a number from 0 to 1e.09"),
        (["--attacks", f"pgd(steps={'-' * 400}1)"], "cannot read"),
        (["--attacks", f"pgd(steps={'[' * 99}{']' * 99})"], "cannot read|must be a whole number"),
        (["--attacks", "pgd\0"], "holds a zero, or half a character: write it without"),
        (["--seed", str(2**64)], "seed=18446744073709551616 must be at most"),
        (["--max-queries", str(10**30)], "max_queries=1(0+) must be at most"),
        (["--attack-time-limit", "nan"], "attack_time_limit=nan must be above 0"),
        (["--device", "meta"], "device 'meta' cannot be used"),
    ],
)
def test_evaluate(tmp_path, words, pattern):
    command = ("evaluate", "model", "--data", "folder", "--root", tmp_path / "absent", "--out", tmp_path / "run")
    refused(cli(*command, *words), pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("x = " + "[" * 3000 + "]" * 3000, "is nested too deeply"),
        ("x = " + "9" * 5000, "no TOML: "),
        ("[[branch]]\nkind = 'stax'\n" * 65, "at most 64 branches, and this one has 65"),
        ("#" * 100_001, "is larger than 100,000 bytes"),
        ("[[branch]]\nkind = 'mtax'\ntargets = 10001", "targets=10001 of branch 'mtax' must be at most 10000"),
        ("[[branch]]\nkind = 'stax'\neps_factor = inf", "eps_factor=inf .* at most 1000"),
    ],
)
def test_recipes(tmp_path, text, pattern):
    (tmp_path / "r.toml").write_text(text)
    command = ("train", "--data", "folder", "--root", tmp_path / "absent", "--out", tmp_path / "run")
    refused(cli(*command, "--recipe", tmp_path / "r.toml"), pattern)
