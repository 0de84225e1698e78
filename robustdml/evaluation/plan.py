"""What a run is going to do, as plain data in the run folder: any process can read it and say what is there of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from robustdml.errors import BudgetError, RunFolderError
from robustdml.evaluation.store import CellKey
from robustdml.files import sealed, strict_json, unsealed, write_text
from robustdml.results import AttackEntry, DatasetEntry, Environment, EvalSpec, Flag, Queries
from robustdml.run_folders import PLAN_FILE
from robustdml.threat import ThreatModel


class Plan(BaseModel):
    """The models, attacks, budgets and queries of one evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The identity of the run (see `robustdml.run_folders.claimed`).
    fingerprint: str
    spec: EvalSpec
    dataset: DatasetEntry
    queries: Queries
    attacks: tuple[AttackEntry, ...]
    #: Spec and budget of each cell of a model, in the order in which they are run.
    budgets: tuple[tuple[str, ThreatModel], ...]
    environment: Environment
    #: About the data.
    flags: tuple[Flag, ...] = ()
    #: See `robustdml.config.RunOptions`.
    command: str = ""
    configuration: str = ""

    def cells(self, model: str) -> list[CellKey]:
        """What is run on a model, in order."""
        return [CellKey(model, spec, threat) for spec, threat in self.budgets]

    def attack_of(self, spec: str) -> AttackEntry:
        """The attack of that spec."""
        return next(entry for entry in self.attacks if entry.spec == spec)

    def save(self, run: Path) -> None:
        """Write the plan into the run folder in one step."""
        write_text(run / PLAN_FILE, sealed(self.model_dump(mode="json")))

    @classmethod
    def load(cls, run: Path) -> Plan:
        """Read the plan of a run folder.

        Raises:
            RunFolderError: there is none, or it is damaged.
        """
        path = run / PLAN_FILE
        if not path.is_file():
            raise RunFolderError(f"no {PLAN_FILE} in '{run}': give the --out folder of 'robustdml evaluate'")
        try:
            return cls.model_validate(unsealed(strict_json(path.read_bytes())))
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg']}"
        except (ValueError, TypeError, AttributeError, BudgetError) as error:
            reason = f"{error}"
        raise RunFolderError(f"'{path}' is damaged ({reason}): repeat the command of that run")
