"""The runtime `hello`: it runs a task's command as one process tree.

This file asks the host. What to answer is decided in `decide.py`, whose tests run natively.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.runtime import (
    Description,
    Event,
    Event_Exited,
    Event_Recovered,
    Event_StopRequested,
    Event_Woke,
)
from wit_world.imports import process, settings, units
from wit_world.imports.types import Step, Step_Done, Task

import decide

# Our word for the one unit of an attempt.
MAIN = "main"


class Runtime(exports.Runtime):
    """The five functions that the host calls, each in a fresh instance."""

    def describe(self) -> Description:
        return Description(name="hello", version="0.1.0", kinds=["process"], config_schema="")

    def probe(self) -> None:
        """It can work wherever processes can be started."""

    def validate(self, task: Task) -> None:
        problems = decide.problems(task)
        if problems:
            raise Err(problems)

    def start(self, task: Task) -> Step:
        request = decide.request(task, settings.get("greeting"))
        try:
            spawned = process.spawn(MAIN, request)
        except Err as refused:
            return decide.not_spawned(refused.value)
        return decide.spawned(spawned)

    def on_event(self, task: Task, state: bytes, event: Event) -> Step:
        match event:
            case Event_Exited(exited):
                return Step_Done(decide.outcome(exited.end))
            case Event_StopRequested(stop):
                try:
                    units.stop(MAIN, stop.grace_ms)
                except Err as refused:
                    return decide.not_stopped(refused.value)
                return decide.running()
            case Event_Woke() | Event_Recovered():
                return decide.running()
