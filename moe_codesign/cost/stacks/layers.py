"""Times of a serving stack's fused MoE layers, by the calibration of the chip or of the most similar one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from moe_codesign.chips import GpuChip
from moe_codesign.cost.estimate import ABSURD, Answer, Estimate, Need, failure_of
from moe_codesign.cost.memory import over_memory
from moe_codesign.cost.stacks.columns import columns_and_failures
from moe_codesign.cost.stacks.model import Calibration, Prediction
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.question import StackLayer
from moe_codesign.domain.timing import Timing
from moe_codesign.errors import UserError
from moe_codesign.formats.tuned_files import Tuned


@dataclass(frozen=True)
class StackLayers:
    """Answers questions about one stack and data type on one chip; see :class:`moe_codesign.cost.estimate.CostModel`.

    Args:
        chip: where.
        calibration: of the stack and type on that chip, or on the most similar one.
        tuned: the stack's tuned tiles, which come before its default rule.
    """

    chip: GpuChip
    calibration: Calibration
    tuned: Tuned | None = None

    at_once: ClassVar[int] = 1 << 17

    def needs(self, questions: Iterable[StackLayer]) -> Iterator[Need]:
        """Nothing: the model was fitted to measured times, not to binaries."""
        return iter(())

    def answer(self, questions: Sequence[StackLayer]) -> list[Answer]:
        """An answer to each question, in their order."""
        columns, failed = columns_and_failures([(question.shape, question.workload) for question in questions])
        answers: dict[int, Answer] = {i: failure_of(error) for i, error in failed.items()}
        places = [i for i in range(len(questions)) if i not in failed]
        try:
            times = self.calibration.predict(self.chip, columns, self.tuned)
            for i, answer in zip(places, _answers(times), strict=True):
                answers[i] = self._with_memory(questions[i], answer)
        except (UserError, *ABSURD) as error:
            answers |= dict.fromkeys(places, failure_of(error))
        return [answers[i] for i in range(len(questions))]

    def _with_memory(self, question: StackLayer, answer: Answer) -> Answer:
        """The answer, with a note where the layer has no room."""
        notes = over_memory(self.chip, question.shape, question.workload)
        if not notes or isinstance(answer, Failure):
            return answer
        return replace(answer, notes=(*notes, *answer.notes))


def _answers(times: Prediction) -> Iterator[Answer]:
    """One answer for each row of the prediction."""
    parts = {name: values.tolist() for name, values in times.parts_us.items()}
    columns = (times.latency_us, times.low_us, times.high_us, times.bound_us)
    for i, (latency, low, high, bound) in enumerate(zip(*(values.tolist() for values in columns), strict=True)):
        if i in times.refused:
            yield Failure(FailureKind.COMPILER, times.refused[i])
            continue
        timing = Timing(
            grade="modelled",
            latency_us=latency,
            low_us=low,
            high_us=high,
            bound_us=bound,
            limiter=times.limiter[i],
            parts_us={name: values[i] for name, values in parts.items()},
        )
        yield Estimate(timing, None, (times.tiles.of_row(i),), (times.note[i],) if times.note[i] else ())
