"""What the runtime answers, as plain functions of what it was told."""

from componentize_py_types import Err
from wit_world.imports import units
from wit_world.imports.types import (
    End,
    EnvVar,
    ExitStatus_Code,
    ExitStatus_Signal,
    ExitStatus_Unknown,
    Failure_Bug,
    Failure_Infrastructure,
    Outcome,
    Outcome_Exited,
    Outcome_ExitedBecause,
    Outcome_Lost,
    Outcome_OutOfMemory,
    Outcome_Signaled,
    Problem,
    SpawnError,
    SpawnError_BadCommand,
    SpawnError_NotExecutable,
    SpawnError_NotFound,
    SpawnError_WorkingDirectory,
    Spawned,
    SpawnRequest,
    Step,
    Step_Done,
    Step_Wait,
    Task,
    Waiting,
)


def problems(task: Task) -> list[Problem]:
    """Everything that keeps a task from ever being started, all of it at once."""
    found = []
    words = task.process.command if task.process else []
    if not words or not words[0]:
        found.append(Problem("/process/command", "must begin with a program"))
    if task.config:
        found.append(Problem("/config", "means nothing to this runtime: leave it out"))
    return found


def request(task: Task, greeting: str | None) -> SpawnRequest:
    """What to start: the task's command, with one more variable."""
    command = task.process
    if command is None:
        raise Err(Failure_Bug("a task without a command came here"))
    greeted = EnvVar("GREETING", "good day" if greeting is None else greeting)
    return SpawnRequest(
        argv=command.command + command.args,
        env=[*command.env, greeted],
        working_dir=command.working_dir,
        extra=[],
    )


def spawned(answer: Spawned) -> Step:
    """What comes after the start. A short command may be over already."""
    return running() if answer.ended is None else Step_Done(outcome(answer.ended))


def not_spawned(error: SpawnError) -> Step:
    """What comes after a start that failed, as a shell says it where it is the task's doing."""
    match error:
        case SpawnError_NotFound(why):
            return Step_Done(Outcome_ExitedBecause((127, why)))
        case (
            SpawnError_NotExecutable(why)
            | SpawnError_WorkingDirectory(why)
            | SpawnError_BadCommand(why)
        ):
            return Step_Done(Outcome_ExitedBecause((126, why)))
    raise Err(Failure_Infrastructure(error.value))


def not_stopped(error: units.Error) -> Step:
    """What comes after a stop that failed: the end, as an event, if there is nothing to stop."""
    if isinstance(error, units.Error_NotRunning):
        return running()
    raise Err(Failure_Infrastructure(error.value))


def running() -> Step:
    """Goes on waiting. There is nothing to remember."""
    return Step_Wait(Waiting(running=True, state=b"", wake_after_ms=None))


def outcome(end: End) -> Outcome:
    """The attempt's end, by the end of its one unit."""
    if end.out_of_memory:
        return Outcome_OutOfMemory()
    match end.status:
        case ExitStatus_Code(code):
            return Outcome_Exited(code)
        case ExitStatus_Signal(number):
            return Outcome_Signaled(number)
        case ExitStatus_Unknown():
            return Outcome_Lost("nobody saw how it ended")
