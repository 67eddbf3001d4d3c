"""From the rounds of a run to the figures of its candidates: which rounds count, and what was seen beside the times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from edgevit.bundle.manifest import Environment, Latency
from edgevit.bundle.measured import Energy, MachineState
from edgevit.evaluation.candidates import Candidate
from edgevit.evaluation.conditions import Conditions
from edgevit.evaluation.energy import Drawn, Idle, energy_of
from edgevit.evaluation.extras import Extras
from edgevit.evaluation.figures import MIN_ROUNDS, Record, Setup, latency_of
from edgevit.evaluation.load import Load
from edgevit.evaluation.rounds import Round, undisturbed
from edgevit.machine.meter import Meter
from edgevit.progress import Progress


@dataclass(slots=True)
class BenchmarkRun:
    """A benchmark while it runs: what is timed under which load, and all that was measured so far."""

    candidates: Sequence[Candidate]
    records: dict[str, Record]
    load: Load
    threads: int
    seed: int
    environment: Environment
    rounds: list[Round] = field(default_factory=list)
    conditions: Conditions | None = None
    meter: Meter | None = None
    idle: Idle = field(default_factory=Idle)
    extras: dict[str, Extras] = field(default_factory=dict)

    def use(self, rounds: Sequence[Round]) -> None:
        """Let these rounds count."""
        for name, record in self.records.items():
            record.blocks = [each.blocks[name] for each in rounds if name in each.blocks]

    @property
    def counted(self) -> list[Round]:
        """The rounds that count: the undisturbed ones, or all where these are too few for a valid result."""
        quiet = undisturbed(self.rounds)
        return quiet if len(quiet) >= MIN_ROUNDS else self.rounds

    def tell_disturbed(self, progress: Progress) -> None:
        """Say which rounds were disturbed, and by what."""
        disturbed = [each for each in self.rounds if each.watched.reasons]
        if disturbed:
            reasons = dict.fromkeys(what for each in disturbed for what in each.watched.reasons)
            what = "measured again" if len(self.counted) < len(self.rounds) else "too many to leave them out"
            progress.note(
                f"{len(disturbed)} of {len(self.rounds)} rounds were disturbed, {what}: {next(iter(reasons))}"
            )


def latencies(run: BenchmarkRun, *, partial: bool = False) -> list[Latency]:
    """Return the figures of all candidates, in their order; ``partial`` ones are of a run that was interrupted."""
    counted = run.counted
    run.use(counted)
    setup = Setup(
        batch=run.load.batch,
        threads=run.threads,
        duration_s=run.load.duration_s,
        environment=run.environment,
        invalid_reasons=tuple(_reasons(run, counted)),
        precision=run.load.precision,
        machine=_machine(run, counted),
        partial=partial,
    )
    if run.meter is not None:
        run.meter.sample()  # so that the last block's end is among the samples
    return [_latency(run, candidate, setup) for candidate in run.candidates]


def _reasons(run: BenchmarkRun, counted: Sequence[Round]) -> list[str]:
    if run.conditions is None or not counted:
        return []
    found = run.conditions.invalid_reasons([each.watched for each in counted])
    disturbed = sum(bool(each.watched.reasons) for each in counted)
    if disturbed:
        found.append(f"only {len(counted) - disturbed} of {len(counted)} rounds were undisturbed")
    return found


def _machine(run: BenchmarkRun, counted: Sequence[Round]) -> MachineState | None:
    if run.conditions is None or not counted:
        return None
    return run.conditions.summary([each.watched for each in counted], [each.watched for each in run.rounds])


def _latency(run: BenchmarkRun, candidate: Candidate, setup: Setup) -> Latency:
    record = run.records[candidate.name]
    found = latency_of(record, run.records[candidate.baseline], setup)
    if found.p50_ms is None:
        return found
    extras = run.extras.get(candidate.name, Extras())
    energy = _energy(run, record)
    return replace(
        found,
        energy=energy if isinstance(energy, Energy) else None,
        energy_reason=energy if isinstance(energy, str) else None,
        end_to_end=extras.end_to_end,
        sweep=extras.sweep,
    )


def _energy(run: BenchmarkRun, record: Record) -> Energy | str:
    meter = run.meter
    if meter is None or run.idle.reason is not None:
        return run.idle.reason or "it was not measured"
    drawn = []
    for block in record.blocks:
        start_s, end_s = block.started_ns / 1e9, block.ended_ns / 1e9
        if (joules := meter.joules(start_s, end_s)) is not None:
            drawn.append(Drawn(joules, end_s - start_s, len(block.inference_ns)))
    return energy_of(drawn, run.idle.watts, meter.source, seed=run.seed)
