/* What the runtime answers, as plain functions of what it was told.
 *
 * Every call of the host is an instance of its own, gone when the call ends: nothing that is
 * allocated here need be freed. */

#ifndef DECIDE_H
#define DECIDE_H

#include "runtime_plugin.h"

typedef runtime_plugin_string_t string_t;
typedef taskwright_plugin_types_task_t task_t;
typedef taskwright_plugin_types_end_t end_t;
typedef taskwright_plugin_types_outcome_t outcome_t;
typedef taskwright_plugin_types_spawn_request_t request_t;
typedef taskwright_plugin_types_spawned_t spawned_t;
typedef taskwright_plugin_types_spawn_error_t spawn_error_t;
typedef taskwright_plugin_units_error_t units_error_t;
typedef exports_taskwright_plugin_runtime_list_problem_t problems_t;
/* A step, or why there is none. */
typedef exports_taskwright_plugin_runtime_result_step_failure_t answer_t;

/* A text, allocated: what a call answers is freed after it was read. */
string_t text(const char *words);

/* A list with one text in it, allocated, too. */
runtime_plugin_list_string_t one(string_t element);

/* Everything that keeps a task from ever being started, all of it at once. */
problems_t problems(const task_t *task);

/* What to start: the task's command, with one more variable. The task has a command. */
request_t request(const task_t *task, string_t greeting);

/* What comes after the start. A short command may be over already. */
answer_t spawned(const spawned_t *spawned);

/* What comes after a start that failed, as a shell says it where it is the task's doing. */
answer_t not_spawned(const spawn_error_t *error);

/* What comes after a stop that failed: the end, as an event, if there is nothing to stop. */
answer_t not_stopped(const units_error_t *error);

/* Goes on waiting. There is nothing to remember. */
answer_t running(void);

/* The attempt is over. */
answer_t done(outcome_t outcome);

/* The plugin met something that it was not written for. */
answer_t bug(const char *words);

/* The attempt's end, by the end of its one unit. */
outcome_t outcome(const end_t *end);

#endif
