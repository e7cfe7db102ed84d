#include "decide.h"

#include <stdlib.h>
#include <string.h>

/* Memory for `count` things. The host tells of a call that has no more of it. */
static void *room(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory == NULL) {
    abort();
  }
  return memory;
}

string_t text(const char *words) {
  string_t made = {.len = strlen(words)};
  made.ptr = room(made.len + 1, 1);
  memcpy(made.ptr, words, made.len);
  return made;
}

runtime_plugin_list_string_t one(string_t element) {
  runtime_plugin_list_string_t list = {.ptr = room(1, sizeof(*list.ptr)), .len = 1};
  list.ptr[0] = element;
  return list;
}

problems_t problems(const task_t *task) {
  problems_t found = {.ptr = room(2, sizeof(*found.ptr))};
  const runtime_plugin_list_string_t *words = &task->process.val.command;
  if (!task->process.is_some || words->len == 0 || words->ptr[0].len == 0) {
    found.ptr[found.len].field = text("/process/command");
    found.ptr[found.len++].message = text("must begin with a program");
  }
  if (task->config.len > 0) {
    found.ptr[found.len].field = text("/config");
    found.ptr[found.len++].message = text("means nothing to this runtime: leave it out");
  }
  return found;
}

request_t request(const task_t *task, string_t greeting) {
  const taskwright_plugin_types_command_t *command = &task->process.val;
  request_t made = {.working_dir = command->working_dir};

  made.argv.len = command->command.len + command->args.len;
  made.argv.ptr = room(made.argv.len + 1, sizeof(*made.argv.ptr));
  for (size_t i = 0; i < made.argv.len; i++) {
    made.argv.ptr[i] = i < command->command.len ? command->command.ptr[i]
                                                : command->args.ptr[i - command->command.len];
  }
  made.env.len = command->env.len + 1;
  made.env.ptr = room(made.env.len, sizeof(*made.env.ptr));
  for (size_t i = 0; i < command->env.len; i++) {
    made.env.ptr[i] = command->env.ptr[i];
  }
  made.env.ptr[command->env.len].name = text("GREETING");
  made.env.ptr[command->env.len].value = greeting;
  return made;
}

answer_t spawned(const spawned_t *spawned) {
  return spawned->ended.is_some ? done(outcome(&spawned->ended.val)) : running();
}

/* A failure of the machine: not the task's doing. */
static answer_t infrastructure(string_t why) {
  answer_t answer = {.is_err = true};
  answer.val.err.tag = TASKWRIGHT_PLUGIN_TYPES_FAILURE_INFRASTRUCTURE;
  answer.val.err.val.infrastructure = why;
  return answer;
}

answer_t not_spawned(const spawn_error_t *error) {
  /* Every case carries a sentence, and all of them lie in one place. */
  string_t why = error->val.other;
  outcome_t outcome = {.tag = TASKWRIGHT_PLUGIN_TYPES_OUTCOME_EXITED_BECAUSE};
  outcome.val.exited_because.f1 = why;
  switch (error->tag) {
  case TASKWRIGHT_PLUGIN_TYPES_SPAWN_ERROR_NOT_FOUND:
    outcome.val.exited_because.f0 = 127;
    return done(outcome);
  case TASKWRIGHT_PLUGIN_TYPES_SPAWN_ERROR_NOT_EXECUTABLE:
  case TASKWRIGHT_PLUGIN_TYPES_SPAWN_ERROR_WORKING_DIRECTORY:
  case TASKWRIGHT_PLUGIN_TYPES_SPAWN_ERROR_BAD_COMMAND:
    outcome.val.exited_because.f0 = 126;
    return done(outcome);
  default:
    return infrastructure(why);
  }
}

answer_t not_stopped(const units_error_t *error) {
  if (error->tag == TASKWRIGHT_PLUGIN_UNITS_ERROR_NOT_RUNNING) {
    return running();
  }
  return infrastructure(error->val.other);
}

answer_t running(void) {
  answer_t answer = {.is_err = false};
  answer.val.ok.tag = TASKWRIGHT_PLUGIN_TYPES_STEP_WAIT;
  answer.val.ok.val.wait = (taskwright_plugin_types_waiting_t){.running = true};
  return answer;
}

answer_t done(outcome_t outcome) {
  answer_t answer = {.is_err = false};
  answer.val.ok.tag = TASKWRIGHT_PLUGIN_TYPES_STEP_DONE;
  answer.val.ok.val.done = outcome;
  return answer;
}

answer_t bug(const char *words) {
  answer_t answer = {.is_err = true};
  answer.val.err.tag = TASKWRIGHT_PLUGIN_TYPES_FAILURE_BUG;
  answer.val.err.val.bug = text(words);
  return answer;
}

outcome_t outcome(const end_t *end) {
  outcome_t outcome = {.tag = TASKWRIGHT_PLUGIN_TYPES_OUTCOME_OUT_OF_MEMORY};
  if (end->out_of_memory) {
    return outcome;
  }
  switch (end->status.tag) {
  case TASKWRIGHT_PLUGIN_TYPES_EXIT_STATUS_CODE:
    outcome.tag = TASKWRIGHT_PLUGIN_TYPES_OUTCOME_EXITED;
    outcome.val.exited = end->status.val.code;
    return outcome;
  case TASKWRIGHT_PLUGIN_TYPES_EXIT_STATUS_SIGNAL:
    outcome.tag = TASKWRIGHT_PLUGIN_TYPES_OUTCOME_SIGNALED;
    outcome.val.signaled = end->status.val.signal;
    return outcome;
  default:
    outcome.tag = TASKWRIGHT_PLUGIN_TYPES_OUTCOME_LOST;
    outcome.val.lost = text("nobody saw how it ended");
    return outcome;
  }
}
