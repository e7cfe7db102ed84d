//! Ends that somebody wants to be told.

use std::time::Duration;

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::port::Callback;

use super::locked;
use crate::queue::rows;
use crate::queue::sql::{Mode, OpError, Operation, Sql};

/// How long a callback is kept from others once somebody takes it to tell it; each further try
/// doubles that, up to an hour.
const FIRST_WAIT: Duration = Duration::from_secs(15);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub(crate) struct Due {
    pub(crate) now: Timestamp,
    pub(crate) most: u32,
}

impl Operation for Due {
    type Output = Vec<Callback>;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "callbacks_due";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let due = "SELECT task_id, url, tries FROM queue_callbacks WHERE due <= ?1 \
                   ORDER BY due LIMIT ?2";
        let due = locked::<S>(due, "FOR UPDATE SKIP LOCKED");
        let mut taken = Vec::new();
        for mut row in sql
            .rows(&due, &[self.now.as_millis().into(), self.most.into()])
            .await?
        {
            let task = rows::id(&mut row, 0)?;
            let callback = Callback {
                task,
                url: row.text(1)?,
                tries: row.small(2)?.saturating_add(1),
            };
            let doubled = 2_u32.saturating_pow(callback.tries.saturating_sub(1).min(16));
            let wait = FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
            sql.run(
                "UPDATE queue_callbacks SET tries = ?2, due = ?3 WHERE task_id = ?1",
                &[
                    (&task.to_string()).into(),
                    callback.tries.into(),
                    self.now.plus(wait).as_millis().into(),
                ],
            )
            .await?;
            taken.push(callback);
        }
        Ok(taken)
    }
}

pub(crate) struct Done(pub(crate) TaskId);

impl Operation for Done {
    type Output = ();
    const MODE: Mode = Mode::Single;
    const NAME: &'static str = "callback_done";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<(), OpError> {
        let done = "DELETE FROM queue_callbacks WHERE task_id = ?1";
        sql.run(done, &[(&self.0.to_string()).into()]).await?;
        Ok(())
    }
}
