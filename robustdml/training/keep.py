"""What a training keeps in its run folder: where it stands, its history, and the model of its best epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from robustdml.data.finding import write_left_out
from robustdml.errors import TrainingError
from robustdml.files import write_text
from robustdml.models import EmbeddingModel, copied, save_checkpoint
from robustdml.models.weights import put_weights
from robustdml.run_folders import claimed
from robustdml.training.setup import Setup
from robustdml.training.state import TrainingState, load_state, read_state, save_state

METRICS_FILE = "metrics.jsonl"


class RunFolder:
    """The folder of one run. Process 0 alone sees it; none goes on before it is written.

    Args:
        path: where it is, or will be.
        run: what is trained.
    """

    def __init__(self, path: Path, run: Setup) -> None:
        self.path, self._run, self._by_first = path, run, run.processes.by_first

    @classmethod
    @contextmanager
    def claimed(cls, path: Path, run: Setup) -> Iterator[RunFolder]:
        """The folder, for the block.

        Raises:
            RunFolderError: it holds another run, or another process is writing into it.
        """
        with ExitStack() as held:
            run.processes.by_first(lambda: held.enter_context(claimed(path, run.spec)))
            if run.writes:
                write_left_out(run.left_out, path)
            yield cls(path, run)

    def resume(self) -> TrainingState:
        """Where an earlier call stopped, with modules and optimizer as they were then; or the beginning."""
        saved = self._by_first(lambda: read_state(self.path))
        if saved is None:
            return TrainingState()
        return load_state(saved, self.path, self._run.modules, self._run.optimizer.adam)

    def save(self, state: TrainingState) -> None:
        """Keep where the run stands."""
        self._by_first(lambda: save_state(self.path, state, self._run.modules, self._run.optimizer.adam))

    def close_epoch(self, state: TrainingState, row: dict[str, float]) -> None:
        """Keep an epoch that is finished, of which ``row`` tells; and its weights, where they are the best so far."""
        state.epoch, state.step, state.total, state.seconds = state.epoch + 1, 0, 0.0, 0.0
        state.history.append(row)
        # Without validation the last epoch is kept: choosing by the test set would flatter the result.
        value = row.get("validation_recall_at_1", float(state.epoch))
        if value > state.best_value:
            state.best_value, state.best_epoch = value, state.epoch
            weights = self._run.optimizer.kept.state_dict().items()
            state.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        self.save(state)
        self._write_history(state)

    def _write_history(self, state: TrainingState) -> None:
        if self._run.writes:
            write_text(self.path / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in state.history))

    def write_best(self, state: TrainingState) -> EmbeddingModel:
        """Write the model of the best epoch, and return it."""
        best = copied(self._run.model).cpu()
        put_weights(best, state.best_weights)
        self._write_history(state)  # A run that was killed just before had saved its last epoch and not told of it.
        about = {**self._run.spec, "kept_epoch": state.best_epoch}
        self._by_first(lambda: save_checkpoint(best, self.path, about))
        return best.eval()

    @contextmanager
    def salvage(self, state: TrainingState) -> Iterator[None]:
        """Where training cannot go on in the block, leave the model that was the best until then, and say so."""
        try:
            yield
        except TrainingError as error:
            if not state.best_epoch:
                raise
            self.write_best(state)
            raise TrainingError(f"{error}; the model of epoch {state.best_epoch} is kept in '{self.path}'") from None
