/* Tests of what is decided. They run natively, with the bindings as plain types. */

#include "decide.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(bool is_so, const char *claim) {
  printf("%s  %s\n", is_so ? "ok    " : "FAILED", claim);
  if (!is_so) {
    exit(1);
  }
}

static bool same(string_t text, const char *words) {
  return text.len == strlen(words) && memcmp(text.ptr, words, text.len) == 0;
}

/* A task that runs this program. */
static task_t task(const char *program) {
  task_t task = {.attempt = 1, .kind = text("process")};
  task.process.is_some = true;
  task.process.val.command = one(text(program));
  task.process.val.args = one(text("an argument"));
  return task;
}

static void a_task_needs_a_program_and_no_configuration(void) {
  task_t good = task("echo"), empty = task(""), configured = task("");
  check(problems(&good).len == 0, "a good task is taken");
  problems_t found = problems(&empty);
  check(found.len == 1 && same(found.ptr[0].field, "/process/command"), "a program is wanted");
  configured.config = text("{}");
  found = problems(&configured);
  check(found.len == 2 && same(found.ptr[1].field, "/config"), "all problems are told at once");
}

static void the_command_gets_a_greeting(void) {
  task_t good = task("echo");
  request_t made = request(&good, text("hi"));
  check(made.argv.len == 2 && same(made.argv.ptr[0], "echo") &&
            same(made.argv.ptr[1], "an argument"),
        "the command and its arguments are started");
  check(made.env.len == 1 && same(made.env.ptr[0].name, "GREETING") &&
            same(made.env.ptr[0].value, "hi"),
        "with one more variable");
}

static void an_end_becomes_the_outcome(void) {
  end_t seven = {.status = {.tag = TASKWRIGHT_PLUGIN_TYPES_EXIT_STATUS_CODE, .val = {.code = 7}}};
  end_t starved = {.out_of_memory = true};
  end_t unseen = {.status = {.tag = TASKWRIGHT_PLUGIN_TYPES_EXIT_STATUS_UNKNOWN}};
  outcome_t exited = outcome(&seven);
  check(exited.tag == TASKWRIGHT_PLUGIN_TYPES_OUTCOME_EXITED && exited.val.exited == 7,
        "an exit code is the outcome");
  check(outcome(&starved).tag == TASKWRIGHT_PLUGIN_TYPES_OUTCOME_OUT_OF_MEMORY,
        "so is the want of memory");
  check(outcome(&unseen).tag == TASKWRIGHT_PLUGIN_TYPES_OUTCOME_LOST,
        "an end that nobody saw is lost");
}

static void what_is_not_there_ends_the_attempt_and_a_full_machine_does_not(void) {
  spawn_error_t missing = {.tag = TASKWRIGHT_PLUGIN_TYPES_SPAWN_ERROR_NOT_FOUND,
                           .val = {.not_found = text("not in PATH")}};
  answer_t answer = not_spawned(&missing);
  check(!answer.is_err && answer.val.ok.tag == TASKWRIGHT_PLUGIN_TYPES_STEP_DONE &&
            answer.val.ok.val.done.val.exited_because.f0 == 127,
        "what is not there ends the attempt with 127");
  spawn_error_t full = {.tag = TASKWRIGHT_PLUGIN_TYPES_SPAWN_ERROR_UNAVAILABLE,
                        .val = {.unavailable = text("no room")}};
  answer = not_spawned(&full);
  check(answer.is_err && same(answer.val.err.val.infrastructure, "no room"),
        "a full machine is the machine's failure");
}

static void what_has_ended_need_not_be_stopped(void) {
  units_error_t gone = {.tag = TASKWRIGHT_PLUGIN_UNITS_ERROR_NOT_RUNNING};
  units_error_t silent = {.tag = TASKWRIGHT_PLUGIN_UNITS_ERROR_UNAVAILABLE};
  check(!not_stopped(&gone).is_err, "what has ended need not be stopped");
  check(not_stopped(&silent).is_err, "a stop that failed is told");
}

int main(void) {
  a_task_needs_a_program_and_no_configuration();
  the_command_gets_a_greeting();
  an_end_becomes_the_outcome();
  what_is_not_there_ends_the_attempt_and_a_full_machine_does_not();
  what_has_ended_need_not_be_stopped();
  puts("all claims hold");
  return 0;
}
