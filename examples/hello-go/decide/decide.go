// Package decide holds what the runtime answers, as plain functions of what it was told.
package decide

import (
	"slices"

	wit "go.bytecodealliance.org/pkg/wit/types"

	types "wit_component/taskwright_plugin_types"
	units "wit_component/taskwright_plugin_units"
)

// Answer is a step, or why there is none.
type Answer = wit.Result[types.Step, types.Failure]

// Problems are everything that keeps a task from ever being started, all of it at once.
func Problems(task types.Task) []types.Problem {
	var found []types.Problem
	var command []string
	if task.Process.IsSome() {
		command = task.Process.Some().Command
	}
	if len(command) == 0 || command[0] == "" {
		found = append(found, types.Problem{
			Field:   "/process/command",
			Message: "must begin with a program",
		})
	}
	if task.Config != "" {
		found = append(found, types.Problem{
			Field:   "/config",
			Message: "means nothing to this runtime: leave it out",
		})
	}
	return found
}

// Request is what to start: the task's command, with one more variable.
func Request(command types.Command, greeting string) types.SpawnRequest {
	greeted := types.EnvVar{Name: "GREETING", Value: greeting}
	return types.SpawnRequest{
		Argv:       slices.Concat(command.Command, command.Args),
		Env:        slices.Concat(command.Env, []types.EnvVar{greeted}),
		WorkingDir: command.WorkingDir,
	}
}

// Spawned is what comes after the start. A short command may be over already.
func Spawned(spawned types.Spawned) Answer {
	if spawned.Ended.IsSome() {
		return Done(Outcome(spawned.Ended.Some()))
	}
	return Running()
}

// NotSpawned is what comes after a start that failed, as a shell says it where it is the task's
// doing.
func NotSpawned(refused types.SpawnError) Answer {
	because := func(code uint8, why string) Answer {
		pair := wit.Tuple2[uint8, string]{F0: code, F1: why}
		return Done(types.MakeOutcomeExitedBecause(pair))
	}
	switch refused.Tag() {
	case types.SpawnError_NotFound:
		return because(127, refused.NotFound())
	case types.SpawnError_NotExecutable:
		return because(126, refused.NotExecutable())
	case types.SpawnError_WorkingDirectory:
		return because(126, refused.WorkingDirectory())
	case types.SpawnError_BadCommand:
		return because(126, refused.BadCommand())
	case types.SpawnError_TargetGone:
		return infrastructure(refused.TargetGone())
	case types.SpawnError_Denied:
		return infrastructure(refused.Denied())
	case types.SpawnError_Unavailable:
		return infrastructure(refused.Unavailable())
	default:
		return infrastructure(refused.Other())
	}
}

// NotStopped is what comes after a stop that failed: the end, as an event, if there is nothing to
// stop.
func NotStopped(refused units.Error) Answer {
	switch refused.Tag() {
	case units.Error_NotRunning:
		return Running()
	case units.Error_Denied:
		return infrastructure(refused.Denied())
	case units.Error_Unavailable:
		return infrastructure(refused.Unavailable())
	default:
		return infrastructure(refused.Other())
	}
}

// Running goes on waiting. There is nothing to remember.
func Running() Answer {
	waiting := types.Waiting{Running: true, WakeAfterMs: wit.None[uint64]()}
	return wit.Ok[types.Step, types.Failure](types.MakeStepWait(waiting))
}

// Done is the end of the attempt.
func Done(outcome types.Outcome) Answer {
	return wit.Ok[types.Step, types.Failure](types.MakeStepDone(outcome))
}

// Bug is something that the plugin was not written for.
func Bug(why string) Answer {
	return wit.Err[types.Step](types.MakeFailureBug(why))
}

// A failure of the machine: not the task's doing.
func infrastructure(why string) Answer {
	return wit.Err[types.Step](types.MakeFailureInfrastructure(why))
}

// Outcome is the attempt's end, by the end of its one unit.
func Outcome(end types.End) types.Outcome {
	if end.OutOfMemory {
		return types.MakeOutcomeOutOfMemory()
	}
	switch end.Status.Tag() {
	case types.ExitStatus_Code:
		return types.MakeOutcomeExited(end.Status.Code())
	case types.ExitStatus_Signal:
		return types.MakeOutcomeSignaled(end.Status.Signal())
	default:
		return types.MakeOutcomeLost("nobody saw how it ended")
	}
}
