//! Steps of a trajectory, each kept once.

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::port::StoreError;
use taskwright_queue::step::{StepPage, StepPlace, StepQuery, StepsKept};
use taskwright_queue::{NewStep, Step, Writer};

use super::ends::signed;
use super::logs::with_rows;
use super::{PAGE_BYTES, tasks, writers};
use crate::queue::rows::{self, step_columns};
use crate::queue::sql::{Mode, OpError, Operation, Sql, Value};

/// Steps that one statement inserts.
const STEPS_A_STATEMENT: usize = 100;
const COLUMNS: usize = 8;

pub(crate) struct Append {
    pub(crate) task: TaskId,
    pub(crate) writer: Option<Writer>,
    pub(crate) steps: Vec<NewStep>,
    pub(crate) now: Timestamp,
}

impl Operation for Append {
    type Output = StepsKept;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "append_steps";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<StepsKept, OpError> {
        let writer = writers::check(sql, self.task, self.writer.as_ref()).await?;
        let attempt = writer.told.unwrap_or(writer.present);
        let id = self.task.to_string();
        let mut new = 0_u64;
        for steps in self.steps.chunks(STEPS_A_STATEMENT) {
            let added = self.insert(sql, &id, attempt, steps).await?;
            new = new.saturating_add(added);
            if added < steps.len() as u64 {
                check_same(sql, &id, attempt, steps).await?;
            }
        }
        Ok(StepsKept { attempt, new })
    }
}

impl Append {
    /// Inserts steps whose numbers are not known yet; answers how many those were.
    async fn insert<S: Sql>(
        &self,
        sql: &mut S,
        task: &str,
        attempt: u32,
        steps: &[NewStep],
    ) -> Result<u64, OpError> {
        let mut values: Vec<Value<'_>> = Vec::with_capacity(steps.len() * COLUMNS);
        for step in steps {
            let row: [Value<'_>; COLUMNS] = [
                task.into(),
                attempt.into(),
                signed(step.number).into(),
                step.at.unwrap_or(self.now).as_millis().into(),
                step.reward.into(),
                i64::from(step.terminated).into(),
                i64::from(step.truncated).into(),
                step.body.as_str().into(),
            ];
            values.extend_from_slice(&row);
        }
        // Statements of other lengths would each be prepared anew.
        let together = if steps.len() == STEPS_A_STATEMENT {
            STEPS_A_STATEMENT
        } else {
            1
        };
        let insert = "INSERT INTO queue_steps (task_id, attempt, number, at, reward, terminated, \
                      truncated, body) VALUES ";
        let statement = with_rows(insert, together, COLUMNS)
            + " ON CONFLICT (task_id, attempt, number) DO NOTHING";
        let mut added = 0_u64;
        for rows in values.chunks(together * COLUMNS) {
            added = added.saturating_add(sql.run(&statement, rows).await?);
        }
        Ok(added)
    }
}

/// Of steps some of which were known: fine if they are the same once more.
async fn check_same<S: Sql>(
    sql: &mut S,
    task: &str,
    attempt: u32,
    steps: &[NewStep],
) -> Result<(), OpError> {
    let kept = "SELECT body FROM queue_steps WHERE task_id = ?1 AND attempt = ?2 AND number = ?3";
    for step in steps {
        let values = [task.into(), attempt.into(), signed(step.number).into()];
        let same = match sql.row(kept, &values).await? {
            Some(mut row) => row.text(0)? == step.body.as_str(),
            None => false,
        };
        if !same {
            return Err(StoreError::Conflict(format!(
                "step {} of attempt {attempt} at task {task} is on record with another content; \
                 none of these steps was kept",
                step.number
            ))
            .into());
        }
    }
    Ok(())
}

pub(crate) struct Read(pub(crate) StepQuery);

impl Operation for Read {
    type Output = StepPage;
    const MODE: Mode = Mode::ReadParts;
    const NAME: &'static str = "steps";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<StepPage, OpError> {
        let query = &self.0;
        tasks::must_exist(sql, query.task).await?;
        let id = query.task.to_string();
        let from = query.from.unwrap_or(StepPlace {
            attempt: 0,
            number: 0,
        });
        let mut values: Vec<Value<'_>> = vec![
            (&id).into(),
            from.attempt.into(),
            signed(from.number).into(),
            i64::from(query.most).saturating_add(1).into(),
        ];
        let attempt = match query.attempt {
            Some(attempt) => {
                values.push(attempt.into());
                " AND attempt = ?5"
            }
            None => "",
        };
        let statement = format!(
            "SELECT {} FROM queue_steps WHERE task_id = ?1 AND (attempt, number) >= (?2, ?3)\
             {attempt} ORDER BY attempt, number LIMIT ?4",
            step_columns!()
        );
        let found = sql.rows_within(&statement, &values, PAGE_BYTES).await?;
        let mut steps: Vec<Step> = found
            .rows
            .into_iter()
            .map(|row| rows::step(query.task, row))
            .collect::<Result<_, _>>()?;
        let mut next = None;
        if steps.len() > query.most as usize {
            next = steps.pop().map(|step| StepPlace {
                attempt: step.attempt,
                number: step.number,
            });
        } else if found.cut {
            next = steps.last().map(|step| StepPlace {
                attempt: step.attempt,
                number: step.number.saturating_add(1),
            });
        }
        Ok(StepPage { steps, next })
    }
}
