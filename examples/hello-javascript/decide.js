// What the runtime answers, as plain functions of what it was told.

// Everything that keeps a task from ever being started, all of it at once.
export function problems(task) {
  const found = [];
  if (!task.process?.command[0]) {
    found.push({ field: "/process/command", message: "must begin with a program" });
  }
  if (task.config !== "") {
    found.push({ field: "/config", message: "means nothing to this runtime: leave it out" });
  }
  return found;
}

// What to start: the task's command, with one more variable.
export function request(task, greeting) {
  const command = task.process;
  if (!command) {
    throw { tag: "bug", val: "a task without a command came here" };
  }
  return {
    argv: [...command.command, ...command.args],
    env: [...command.env, { name: "GREETING", value: greeting ?? "good day" }],
    workingDir: command.workingDir,
    extra: [],
  };
}

// What comes after the start. A short command may be over already.
export function spawned(answer) {
  return answer.ended ? done(outcome(answer.ended)) : running();
}

// What comes after a start that failed, as a shell says it where it is the task's doing.
export function notSpawned(error) {
  switch (error.tag) {
    case "not-found":
      return done({ tag: "exited-because", val: [127, error.val] });
    case "not-executable":
    case "working-directory":
    case "bad-command":
      return done({ tag: "exited-because", val: [126, error.val] });
    default:
      // Not the task's doing.
      throw { tag: "infrastructure", val: error.val };
  }
}

// What comes after a stop that failed: the end, as an event, if there is nothing to stop.
export function notStopped(error) {
  if (error.tag === "not-running") {
    return running();
  }
  throw { tag: "infrastructure", val: error.val };
}

// Goes on waiting. There is nothing to remember.
export function running() {
  const waiting = { running: true, state: new Uint8Array(), wakeAfterMs: null };
  return { tag: "wait", val: waiting };
}

// The attempt is over.
export function done(outcome) {
  return { tag: "done", val: outcome };
}

// The attempt's end, by the end of its one unit.
export function outcome(end) {
  if (end.outOfMemory) {
    return { tag: "out-of-memory" };
  }
  switch (end.status.tag) {
    case "code":
      return { tag: "exited", val: end.status.val };
    case "signal":
      return { tag: "signaled", val: end.status.val };
    default:
      return { tag: "lost", val: "nobody saw how it ended" };
  }
}
