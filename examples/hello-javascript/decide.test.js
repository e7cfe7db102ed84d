// Tests of what is decided, by Node's own test runner.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as decide from "./decide.js";

// A task that runs this command.
function task(command, config = "") {
  return {
    id: "01980000-0000-7000-8000-000000000000",
    namespace: "default",
    name: "build",
    attempt: 1,
    kind: "process",
    process: { command, args: ["an argument"], env: [], workingDir: null },
    document: "",
    labels: [],
    config,
    extra: [],
  };
}

test("a task needs a program and no configuration", () => {
  const fields = (task) => decide.problems(task).map((one) => one.field);
  assert.deepEqual(fields(task(["echo"])), []);
  assert.deepEqual(fields(task([""])), ["/process/command"]);
  assert.deepEqual(fields(task([], "{}")), ["/process/command", "/config"]);
});

test("the command gets a greeting", () => {
  const request = decide.request(task(["echo"]), "hi");
  assert.deepEqual(request.argv, ["echo", "an argument"]);
  assert.deepEqual(request.env, [{ name: "GREETING", value: "hi" }]);
});

test("an end becomes the outcome", () => {
  const outcome = (status, outOfMemory) => decide.outcome({ status, outOfMemory });
  assert.deepEqual(outcome({ tag: "code", val: 7 }, false), { tag: "exited", val: 7 });
  assert.deepEqual(outcome({ tag: "signal", val: 9 }, true), { tag: "out-of-memory" });
  assert.equal(outcome({ tag: "unknown" }, false).tag, "lost");
});

test("a short command may be over already", () => {
  const ended = { status: { tag: "code", val: 3 }, outOfMemory: false };
  const over = decide.spawned({ pid: 7, ended });
  assert.deepEqual(over, { tag: "done", val: { tag: "exited", val: 3 } });
  assert.equal(decide.spawned({ pid: 7, ended: null }).tag, "wait");
});

test("what is not there ends the attempt and a full machine does not", () => {
  const missing = decide.notSpawned({ tag: "not-found", val: "not in PATH" });
  assert.deepEqual(missing.val, { tag: "exited-because", val: [127, "not in PATH"] });
  const full = { tag: "unavailable", val: "no room" };
  assert.throws(
    () => decide.notSpawned(full),
    (thrown) => thrown.tag === "infrastructure" && thrown.val === "no room",
  );
});

test("what has ended need not be stopped", () => {
  assert.equal(decide.notStopped({ tag: "not-running", val: "main" }).tag, "wait");
  const unreachable = { tag: "unavailable", val: "no supervisor" };
  assert.throws(() => decide.notStopped(unreachable), (thrown) => thrown.tag === "infrastructure");
});
