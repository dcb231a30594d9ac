"""What came of a soak, in numbers and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.soak.accounts import Accounts
from tests.soak.measure import MEASURES, Sample, grows, growth, values


@dataclass(slots=True)
class Report:
    """What came of it; ``wrong`` is what should not have been."""

    accounts: Accounts
    done: Counter[str]
    seconds: float
    samples: Mapping[int, Sequence[Sample]]
    spooled: Sequence[str]
    logs: str
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        accounts, asked = self.accounts, self.accounts.asked
        doors = Counter(each.door for each in asked)
        lines = [
            f"{self.seconds:.0f} s: {len(asked)} requests ({dict(doors)}), {len(accounts.served)} reached the provider",
            f"events: {dict(self.done)}",
            f"answers: {sum(each.whole for each in asked)} whole, "
            f"{dict(Counter(each.status for each in asked))} by status",
            f"{sum(each.worker in accounts.killed for each in asked)} by workers that were killed, "
            f"{len(accounts.unanswered())} clean ones without any answer, "
            f"{len(accounts.broken())} broken that nobody had killed",
            f"records: {len(accounts.views)}, {dict(accounts.statuses())}; "
            f"tokens compared exactly of {len(accounts.exact())}",
            f"why there was no answer: {dict(Counter(str(each.error)[:60] for each in accounts.unanswered()))}",
            f"spool files left: {len(self.spooled)}",
        ]
        for pid, samples in self.samples.items():
            if len(samples) > 1:
                half = last_half(samples, self.seconds)
                lines.append(
                    f"process {pid}, {len(samples)} samples: {_grown(samples if len(half) < 2 else half)}"
                )
        return "\n".join([*lines, f"wrong: {len(self.wrong)}", *self.wrong[:20]])


def _grown(samples: Sequence[Sample]) -> str:
    """How each measure went, for people."""
    seen = ((measure, values(samples, measure)) for measure in MEASURES)
    return ", ".join(
        f"{measure} {each[0]:.0f} … {each[-1]:.0f} ({100 * growth(samples, measure) / max(1.0, each[0]):+.2f} %)"
        for measure, each in seen
    )


def last_half(samples: Sequence[Sample], seconds: float) -> list[Sample]:
    """Those of the second half of the load."""
    return [each for each in samples if each.at >= seconds / 2]


def growing(report: Report) -> list[str]:
    """A sentence for each measure of a process that grew over the last half."""
    return [
        f"process {pid} grows in {measure}: {values(half, measure)}"
        for pid, samples in report.samples.items()
        if len(half := last_half(samples, report.seconds)) > 2
        for measure in MEASURES
        if grows(half, measure)
    ]
