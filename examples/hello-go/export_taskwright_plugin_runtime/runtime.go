// Package export_taskwright_plugin_runtime is the runtime `hello`: it runs a task's command as one
// process tree.
//
// This file asks the host. What to answer is decided in package decide, whose tests run natively.
// The package's name is the one by which the bindings look for these functions.
package export_taskwright_plugin_runtime

import (
	wit "go.bytecodealliance.org/pkg/wit/types"

	"wit_component/decide"
	process "wit_component/taskwright_plugin_process"
	runtime "wit_component/taskwright_plugin_runtime"
	settings "wit_component/taskwright_plugin_settings"
	types "wit_component/taskwright_plugin_types"
	units "wit_component/taskwright_plugin_units"
)

// Our word for the one unit of an attempt.
const main = "main"

// Describe says what this plugin is.
func Describe() runtime.Description {
	return runtime.Description{Name: "hello", Version: "0.1.0", Kinds: []string{"process"}}
}

// Probe finds nothing: it can work wherever processes can be started.
func Probe() wit.Result[wit.Unit, string] {
	return wit.Ok[wit.Unit, string](wit.Unit{})
}

// Validate checks a task before anything of it is stored.
func Validate(task types.Task) wit.Result[wit.Unit, []types.Problem] {
	if problems := decide.Problems(task); len(problems) > 0 {
		return wit.Err[wit.Unit](problems)
	}
	return wit.Ok[wit.Unit, []types.Problem](wit.Unit{})
}

// Start begins an attempt.
func Start(task types.Task) wit.Result[types.Step, types.Failure] {
	if task.Process.IsNone() {
		return decide.Bug("a task without a command came here")
	}
	greeting := settings.Get("greeting").SomeOr("good day")
	spawned := process.Spawn(main, decide.Request(task.Process.Some(), greeting))
	if spawned.IsErr() {
		return decide.NotSpawned(spawned.Err())
	}
	return decide.Spawned(spawned.Ok())
}

// OnEvent hears of an event and says what comes next.
func OnEvent(_ types.Task, _ []uint8, event runtime.Event) wit.Result[types.Step, types.Failure] {
	switch event.Tag() {
	case runtime.Event_Exited:
		return decide.Done(decide.Outcome(event.Exited().End))
	case runtime.Event_StopRequested:
		if stopped := units.Stop(main, event.StopRequested().GraceMs); stopped.IsErr() {
			return decide.NotStopped(stopped.Err())
		}
	}
	return decide.Running()
}
