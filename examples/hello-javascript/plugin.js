// The runtime `hello`: it runs a task's command as one process tree.
//
// This file asks the host. What to answer is decided in `decide.js`, whose tests run natively.

import process from "taskwright:plugin/process@0.1.0";
import settings from "taskwright:plugin/settings@0.1.0";
import units from "taskwright:plugin/units@0.1.0";

import * as decide from "./decide.js";

// Our word for the one unit of an attempt.
const MAIN = "main";

// The five functions that the host calls, each in a fresh instance. What is thrown is the error
// of the function's result.
export const runtime = {
  describe() {
    return { name: "hello", version: "0.1.0", kinds: ["process"], configSchema: "" };
  },

  // It can work wherever processes can be started.
  probe() {},

  validate(task) {
    const problems = decide.problems(task);
    if (problems.length > 0) {
      throw problems;
    }
  },

  start(task) {
    const request = decide.request(task, settings.get("greeting"));
    let spawned;
    try {
      spawned = process.spawn(MAIN, request);
    } catch (error) {
      return decide.notSpawned(answered(error));
    }
    return decide.spawned(spawned);
  },

  onEvent(task, state, event) {
    switch (event.tag) {
      case "exited":
        return decide.done(decide.outcome(event.val.end));
      case "stop-requested":
        try {
          units.stop(MAIN, event.val.graceMs);
        } catch (error) {
          return decide.notStopped(answered(error));
        }
        return decide.running();
      default:
        return decide.running();
    }
  },
};

// The error that the host answered with. Whatever else was thrown is a fault of this file.
function answered(error) {
  if (error.payload === undefined) {
    throw error;
  }
  return error.payload;
}
