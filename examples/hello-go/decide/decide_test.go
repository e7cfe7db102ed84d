package decide

import (
	"slices"
	"testing"

	wit "go.bytecodealliance.org/pkg/wit/types"

	types "wit_component/taskwright_plugin_types"
	units "wit_component/taskwright_plugin_units"
)

func task(config string, command ...string) types.Task {
	process := types.Command{Command: command, Args: []string{"an argument"}}
	return types.Task{Attempt: 1, Kind: "process", Process: wit.Some(process), Config: config}
}

func TestATaskNeedsAProgramAndNoConfiguration(t *testing.T) {
	check := func(task types.Task, wanted ...string) {
		var fields []string
		for _, problem := range Problems(task) {
			fields = append(fields, problem.Field)
		}
		if !slices.Equal(fields, wanted) {
			t.Errorf("%v, not %v", fields, wanted)
		}
	}
	check(task("", "echo"))
	check(task("", ""), "/process/command")
	check(task("{}"), "/process/command", "/config")
}

func TestTheCommandGetsAGreeting(t *testing.T) {
	request := Request(task("", "echo").Process.Some(), "hi")
	if !slices.Equal(request.Argv, []string{"echo", "an argument"}) {
		t.Errorf("%v is started", request.Argv)
	}
	if !slices.Equal(request.Env, []types.EnvVar{{Name: "GREETING", Value: "hi"}}) {
		t.Errorf("%v is its environment", request.Env)
	}
}

func TestAnEndBecomesTheOutcome(t *testing.T) {
	exited := Outcome(types.End{Status: types.MakeExitStatusCode(7)})
	if exited.Tag() != types.Outcome_Exited || exited.Exited() != 7 {
		t.Errorf("exit code 7 became %v", exited)
	}
	starved := types.End{Status: types.MakeExitStatusSignal(9), OutOfMemory: true}
	if Outcome(starved).Tag() != types.Outcome_OutOfMemory {
		t.Errorf("want of memory became %v", Outcome(starved))
	}
	unseen := types.End{Status: types.MakeExitStatusUnknown()}
	if Outcome(unseen).Tag() != types.Outcome_Lost {
		t.Errorf("an end that nobody saw became %v", Outcome(unseen))
	}
}

func TestWhatIsNotThereEndsTheAttemptAndAFullMachineDoesNot(t *testing.T) {
	missing := NotSpawned(types.MakeSpawnErrorNotFound("not in PATH"))
	if code := missing.Ok().Done().ExitedBecause().F0; code != 127 {
		t.Errorf("what is not there ended it with %v", code)
	}
	full := NotSpawned(types.MakeSpawnErrorUnavailable("no room"))
	if full.IsOk() || full.Err().Infrastructure() != "no room" {
		t.Errorf("a full machine was told as %v", full)
	}
}

func TestWhatHasEndedNeedNotBeStopped(t *testing.T) {
	if gone := NotStopped(units.MakeErrorNotRunning("main")); gone.IsErr() {
		t.Errorf("what has ended was told as %v", gone)
	}
	if NotStopped(units.MakeErrorUnavailable("no supervisor")).IsOk() {
		t.Error("a stop that failed was not told")
	}
}
