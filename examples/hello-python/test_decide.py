"""Tests of what is decided. They run natively, with the bindings as plain types."""

import unittest

from componentize_py_types import Err
from wit_world.imports import units
from wit_world.imports.types import (
    Command,
    End,
    EnvVar,
    ExitStatus_Code,
    ExitStatus_Signal,
    ExitStatus_Unknown,
    Failure_Infrastructure,
    Outcome_Exited,
    Outcome_ExitedBecause,
    Outcome_Lost,
    Outcome_OutOfMemory,
    SpawnError_NotFound,
    SpawnError_Unavailable,
    Spawned,
    Step_Done,
    Step_Wait,
    Task,
)

import decide


def task(*command: str, config: str = "") -> Task:
    """A task that runs this command."""
    return Task(
        id="01980000-0000-7000-8000-000000000000",
        namespace="default",
        name="build",
        attempt=1,
        kind="process",
        process=Command(list(command), ["an argument"], [], None),
        document="",
        labels=[],
        config=config,
        extra=[],
    )


class Decisions(unittest.TestCase):
    def test_a_task_needs_a_program_and_no_configuration(self):
        fields = lambda task: [one.field for one in decide.problems(task)]
        self.assertEqual(fields(task("echo")), [])
        self.assertEqual(fields(task("")), ["/process/command"])
        self.assertEqual(fields(task(config="{}")), ["/process/command", "/config"])

    def test_the_command_gets_a_greeting(self):
        request = decide.request(task("echo"), "hi")
        self.assertEqual(request.argv, ["echo", "an argument"])
        self.assertEqual(request.env, [EnvVar("GREETING", "hi")])

    def test_an_end_becomes_the_outcome(self):
        for status, starved, wanted in [
            (ExitStatus_Code(7), False, Outcome_Exited(7)),
            (ExitStatus_Signal(9), True, Outcome_OutOfMemory()),
            (ExitStatus_Unknown(), False, Outcome_Lost("nobody saw how it ended")),
        ]:
            self.assertEqual(decide.outcome(End(status, starved)), wanted)

    def test_a_short_command_may_be_over_already(self):
        over = decide.spawned(Spawned(7, End(ExitStatus_Code(3), False)))
        self.assertEqual(over, Step_Done(Outcome_Exited(3)))
        self.assertIsInstance(decide.spawned(Spawned(7, None)), Step_Wait)

    def test_what_is_not_there_ends_the_attempt_and_a_full_machine_does_not(self):
        missing = decide.not_spawned(SpawnError_NotFound("not in PATH"))
        self.assertEqual(missing, Step_Done(Outcome_ExitedBecause((127, "not in PATH"))))
        with self.assertRaises(Err) as full:
            decide.not_spawned(SpawnError_Unavailable("no room"))
        self.assertEqual(full.exception.value, Failure_Infrastructure("no room"))

    def test_what_has_ended_need_not_be_stopped(self):
        gone = decide.not_stopped(units.Error_NotRunning("main"))
        self.assertIsInstance(gone, Step_Wait)
        with self.assertRaises(Err):
            decide.not_stopped(units.Error_Unavailable("no supervisor"))


if __name__ == "__main__":
    unittest.main()
