/* The runtime `hello`: it runs a task's command as one process tree.
 *
 * This file asks the host. What to answer is decided in `decide.c`, whose tests run natively.
 * A function that may fail answers `true` and fills its result, or `false` and fills its error. */

#include "decide.h"

/* Our word for the one unit of an attempt. */
static string_t main_unit(void) { return text("main"); }

/* Hands an answer to the host. */
static bool give(answer_t answer, exports_taskwright_plugin_runtime_step_t *step,
                 exports_taskwright_plugin_runtime_failure_t *failure) {
  if (answer.is_err) {
    *failure = answer.val.err;
  } else {
    *step = answer.val.ok;
  }
  return !answer.is_err;
}

void exports_taskwright_plugin_runtime_describe(
    exports_taskwright_plugin_runtime_description_t *description) {
  description->name = text("hello");
  description->version = text("0.1.0");
  description->kinds = one(text("process"));
  description->config_schema = text("");
}

/* It can work wherever processes can be started. */
bool exports_taskwright_plugin_runtime_probe(string_t *trouble) {
  (void)trouble;
  return true;
}

bool exports_taskwright_plugin_runtime_validate(task_t *task, problems_t *found) {
  *found = problems(task);
  return found->len == 0;
}

bool exports_taskwright_plugin_runtime_start(task_t *task,
                                             exports_taskwright_plugin_runtime_step_t *step,
                                             exports_taskwright_plugin_runtime_failure_t *failure) {
  if (!task->process.is_some) {
    return give(bug("a task without a command came here"), step, failure);
  }
  string_t key = text("greeting"), greeting;
  if (!taskwright_plugin_settings_get(&key, &greeting)) {
    greeting = text("good day");
  }
  string_t unit = main_unit();
  request_t wanted = request(task, greeting);
  spawned_t started;
  spawn_error_t error;
  if (!taskwright_plugin_process_spawn(&unit, &wanted, &started, &error)) {
    return give(not_spawned(&error), step, failure);
  }
  return give(spawned(&started), step, failure);
}

bool exports_taskwright_plugin_runtime_on_event(
    task_t *task, runtime_plugin_list_u8_t *state,
    exports_taskwright_plugin_runtime_event_t *event,
    exports_taskwright_plugin_runtime_step_t *step,
    exports_taskwright_plugin_runtime_failure_t *failure) {
  (void)task;
  (void)state;
  string_t unit = main_unit();
  units_error_t error;
  switch (event->tag) {
  case EXPORTS_TASKWRIGHT_PLUGIN_RUNTIME_EVENT_EXITED:
    return give(done(outcome(&event->val.exited.end)), step, failure);
  case EXPORTS_TASKWRIGHT_PLUGIN_RUNTIME_EVENT_STOP_REQUESTED:
    if (!taskwright_plugin_units_stop(&unit, event->val.stop_requested.grace_ms, &error)) {
      return give(not_stopped(&error), step, failure);
    }
    return give(running(), step, failure);
  default:
    return give(running(), step, failure);
  }
}
