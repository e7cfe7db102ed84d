//! The queue on a PostgreSQL server that several daemons share.
//!
//! Connections are few, each operation has a time limit here and on the server, and no
//! transaction is open while anything else is waited for: one old snapshot would keep
//! dead rows from being cleared away, and make every claim slower.
//!
//! Notices travel by LISTEN and NOTIFY, after the commit and many together: a
//! NOTIFY within a transaction would let commits wait for each other. What is
//! lost by a crash in between, waiting claims find by looking again.

mod address;
mod tls;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Client, GenericClient, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Transaction,
};
use futures::TryStreamExt as _;
use futures::future::poll_fn;
use taskwright_model::TaskId;
use taskwright_queue::port::Notice;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::clock::SteadyClock;
use super::schema::{self, SchemaError};
use super::sql::{
    Cell, MOST_RACES, Mode, OpError, Operation, Row, Sql, SqlError, SqlFault, Value, Within,
};
use super::{Engine, OpenQueueError};

pub use address::without_password;

/// Connections of one daemon.
const CONNECTIONS: usize = 16;
/// How long an operation may take, waiting for a connection included.
const OPERATION_TIME: Duration = Duration::from_secs(30);
/// How long one statement may take on the server, and a transaction may be idle there.
const SESSION: &str = "-c statement_timeout=20000 -c idle_in_transaction_session_timeout=20000 \
                       -c lock_timeout=15000 -c jit=off";
/// How long a lost server may take until its connection counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(20);
const CHANNEL: &str = "taskwright_queue";
/// Notices that wait to be sent; beyond it they are replaced by one that says that any were.
const MOST_NOTICES: usize = 4096;
/// Tasks that one notification names. Its payload may have 8000 bytes.
const TASKS_A_NOTIFICATION: usize = 180;
/// The least time from one notification to the next.
const BETWEEN_NOTIFICATIONS: Duration = Duration::from_millis(20);
/// Rows of a part that are asked for at first, and at the most, in one journey.
const FEWEST_ROWS: i32 = 16;
const MOST_ROWS: i32 = 2048;
/// How often the server is asked for its time.
const CLOCK_EVERY: Duration = Duration::from_secs(60);
/// The pauses before a lost connection for notices is made again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The engine. Clones share it.
#[derive(Clone)]
pub(super) struct PostgresEngine {
    pool: Pool,
}

/// What a connected queue consists of.
pub(super) struct Connected {
    pub(super) engine: PostgresEngine,
    pub(super) clock: Arc<SteadyClock>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) tell: Arc<dyn Fn(Notice) + Send + Sync>,
}

/// Connects and moves the tables forward.
pub(super) async fn connect(
    address: &str,
    notices: broadcast::Sender<Notice>,
) -> Result<Connected, OpenQueueError> {
    let address::Address { mut config, tls } =
        address::read(address).map_err(|message| OpenQueueError::Address {
            text: without_password(address).chars().take(200).collect(),
            message,
        })?;
    let place = address::place(&config);
    let options = match config.get_options() {
        Some(given) => format!("{SESSION} {given}"),
        None => SESSION.to_owned(),
    };
    config
        .options(&options)
        .application_name("taskwright")
        .connect_timeout(Duration::from_secs(10))
        .tcp_user_timeout(DEAD_AFTER)
        .keepalives_idle(DEAD_AFTER);
    let server = |message: String| OpenQueueError::Server {
        place: place.clone(),
        message,
    };
    let tls = tls.connector().map_err(server)?;
    let manager = Manager::from_config(
        config.clone(),
        tls.clone(),
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let pool = Pool::builder(manager)
        .max_size(CONNECTIONS)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(OPERATION_TIME))
        .create_timeout(Some(OPERATION_TIME))
        .build()
        .map_err(|error| server(error.to_string()))?;
    let mut client = pool
        .get()
        .await
        .map_err(|error| server(pool_message(&error)))?;
    let transaction = client
        .transaction()
        .await
        .map_err(|error| server(detail(&error)))?;
    // An index of a large queue takes as long as it takes, and others wait for it.
    transaction
        .batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        .await
        .map_err(|error| server(detail(&error)))?;
    let moved = schema::migrate(&mut PostgresSql {
        client: &transaction,
    })
    .await;
    match moved {
        Ok(_) => {}
        Err(SchemaError::Newer(found)) => return Err(OpenQueueError::Newer { place, found }),
        Err(SchemaError::Sql(error)) => return Err(server(error.message)),
    }
    transaction
        .commit()
        .await
        .map_err(|error| server(detail(&error)))?;
    let now = server_time(&client)
        .await
        .map_err(|error| server(detail(&error)))?;
    let clock = Arc::new(SteadyClock::starting_at(now));
    drop(client);

    let (send, waiting) = mpsc::channel(MOST_NOTICES);
    // A notice need not outlive a crash: whoever waits looks again. So no disk waits for it.
    config.options(format!("{options} -c synchronous_commit=off"));
    let messenger = Messenger {
        config,
        tls,
        place,
        // Tells our own notifications from others'.
        sender: format!("{:016x}", rand_id()),
        clock: clock.clone(),
        notices: notices.clone(),
        waiting,
    };
    tokio::spawn(messenger.carry());
    // When too many wait, the messenger is away, and says so itself once it is back.
    let tell = move |notice| {
        let _ = send.try_send(notice);
    };
    Ok(Connected {
        engine: PostgresEngine { pool },
        clock,
        notices,
        tell: Arc::new(tell),
    })
}

/// A number that no other daemon has.
fn rand_id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

async fn server_time(client: &tokio_postgres::Client) -> Result<i64, tokio_postgres::Error> {
    let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
    client.query_one(sql, &[]).await?.try_get(0)
}

impl Engine for PostgresEngine {
    const DISTANT: bool = true;

    async fn run<O: Operation>(&self, operation: O) -> Result<O::Output, OpError> {
        let run = async {
            let mut races = 0;
            loop {
                let answer = self.once(&operation).await;
                match answer {
                    Err(OpError::Sql(SqlError {
                        kind: SqlFault::Raced,
                        ..
                    })) if races < MOST_RACES => {
                        races += 1;
                    }
                    answer => return answer,
                }
            }
        };
        timeout(OPERATION_TIME, run).await.unwrap_or_else(|_| {
            Err(OpError::Sql(SqlError {
                kind: SqlFault::Away,
                message: format!("no answer within {} s", OPERATION_TIME.as_secs()),
            }))
        })
    }
}

impl PostgresEngine {
    async fn once<O: Operation>(&self, operation: &O) -> Result<O::Output, OpError> {
        let mut client = self.pool.get().await.map_err(|error| {
            OpError::Sql(SqlError {
                kind: SqlFault::Away,
                message: pool_message(&error),
            })
        })?;
        if matches!(O::MODE, Mode::Read | Mode::Single) {
            return operation.run(&mut PostgresSql { client: &client }).await;
        }
        let transaction = client.transaction().await.map_err(told)?;
        let output = operation
            .run(&mut PostgresSql {
                client: &transaction,
            })
            .await?;
        transaction.commit().await.map_err(told)?;
        Ok(output)
    }
}

/// A connection of PostgreSQL, or a transaction on it.
struct PostgresSql<'c, C> {
    client: &'c C,
}

impl<C: Parts> PostgresSql<'_, C> {
    async fn prepared(&self, sql: &str) -> Result<Statement, SqlError> {
        let prepared = self.client.prepare_cached(&numbered(sql)).await;
        prepared.map_err(told)
    }
}

fn parameters<'v>(values: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    let values = values.iter();
    values.map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl<C: Parts> Sql for PostgresSql<'_, C> {
    const POSTGRES: bool = true;

    async fn rows(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, SqlError> {
        let statement = self.prepared(sql).await?;
        let values = parameters(values);
        let found = self.client.query(&statement, &values).await.map_err(told)?;
        found.iter().map(row).collect()
    }

    async fn rows_within(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        bytes: usize,
    ) -> Result<Within, SqlError> {
        let statement = self.prepared(sql).await?;
        let values = parameters(values);
        self.client.part(&statement, &values, bytes).await
    }

    async fn run(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, SqlError> {
        let statement = self.prepared(sql).await?;
        let values = parameters(values);
        self.client.execute(&statement, &values).await.map_err(told)
    }
}

/// How a part of an answer is read.
trait Parts: GenericClient + Sync {
    fn part(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
        bytes: usize,
    ) -> impl Future<Output = Result<Within, SqlError>> + Send;
}

/// Outside of a transaction the whole answer comes, and what is behind the part is thrown away.
impl Parts for Client {
    async fn part(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
        bytes: usize,
    ) -> Result<Within, SqlError> {
        let mut within = Within::default();
        for found in self.query(statement, values).await.map_err(told)? {
            if !within.push(row(&found)?, bytes) {
                break;
            }
        }
        Ok(within)
    }
}

/// In a transaction the server keeps the answer, and gives out what is asked for.
impl Parts for Transaction<'_> {
    async fn part(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
        bytes: usize,
    ) -> Result<Within, SqlError> {
        let portal = self.bind(statement, values).await.map_err(told)?;
        let mut within = Within::default();
        let mut many = FEWEST_ROWS;
        loop {
            // One after another: as many of the largest ones would not fit into memory.
            let found = self.query_portal_raw(&portal, many).await.map_err(told)?;
            let mut found = pin!(found);
            let mut read = 0;
            while let Some(found) = found.try_next().await.map_err(told)? {
                if !within.push(row(&found)?, bytes) {
                    return Ok(within);
                }
                read += 1;
            }
            if read < many {
                return Ok(within);
            }
            // Rows that were small until now are asked for in larger numbers.
            if within.bytes < bytes / 8 {
                many = (many * 2).min(MOST_ROWS);
            }
        }
    }
}

/// Parameters as PostgreSQL numbers them. No statement of ours has a question mark otherwise.
fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

fn row(row: &tokio_postgres::Row) -> Result<Row, SqlError> {
    let mut cells = Vec::with_capacity(row.len());
    for (place, column) in row.columns().iter().enumerate() {
        let kind = column.type_();
        let cell = if *kind == Type::INT8 {
            row.try_get::<_, Option<i64>>(place)
                .map(|cell| cell.map(Cell::Int))
        } else if *kind == Type::INT4 {
            row.try_get::<_, Option<i32>>(place)
                .map(|cell| cell.map(|n| Cell::Int(n.into())))
        } else if *kind == Type::FLOAT8 {
            row.try_get::<_, Option<f64>>(place)
                .map(|cell| cell.map(Cell::Real))
        } else if *kind == Type::VOID {
            Ok(None)
        } else {
            row.try_get::<_, Option<String>>(place)
                .map(|cell| cell.map(Cell::Text))
        };
        cells.push(cell.map_err(told)?.unwrap_or(Cell::Null));
    }
    Ok(Row(cells))
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match *self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *kind == Type::INT4 => i32::try_from(number)?.to_sql(kind, out),
            #[expect(clippy::cast_precision_loss, reason = "the column is a double")]
            Self::Int(number) if *kind == Type::FLOAT8 => (number as f64).to_sql(kind, out),
            Self::Int(number) => number.to_sql(kind, out),
            Self::Real(number) => number.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn told(error: tokio_postgres::Error) -> SqlError {
    let code = error.code();
    let raced = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    let kind = match code {
        Some(code) if raced.contains(code) => SqlFault::Raced,
        Some(&SqlState::DISK_FULL) => SqlFault::DiskFull,
        Some(_) => SqlFault::Other,
        None => SqlFault::Away,
    };
    SqlError {
        kind,
        message: detail(&error),
    }
}

/// What happened, causes included: the library's own text names none.
fn detail(error: &tokio_postgres::Error) -> String {
    match (tls::meaning(error), std::error::Error::source(error)) {
        (Some(meaning), _) => format!("{error}: {meaning}"),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

fn pool_message(error: &deadpool_postgres::PoolError) -> String {
    match error {
        deadpool_postgres::PoolError::Backend(error) => detail(error),
        other => other.to_string(),
    }
}

/// Carries notices between daemons, on a connection of its own.
struct Messenger {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    place: String,
    sender: String,
    clock: Arc<SteadyClock>,
    notices: broadcast::Sender<Notice>,
    waiting: mpsc::Receiver<Notice>,
}

impl Messenger {
    /// Until the queue is dropped. A lost connection is made again, with growing pauses.
    async fn carry(mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.waiting.is_closed() {
            let begun = Instant::now();
            match self.converse().await {
                Ok(()) => return,
                Err(message) => {
                    tracing::warn!(
                        place = self.place,
                        "the connection for notices was lost: {message}; it is made again"
                    );
                    metrics::counter!("taskwright_queue_notice_reconnects_total").increment(1);
                }
            }
            if begun.elapsed() >= LONGEST_PAUSE {
                // It was a good connection: what broke it is news.
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, until it is lost or nobody needs it.
    async fn converse(&mut self) -> Result<(), String> {
        let connected = self
            .config
            .connect(self.tls.clone())
            .await
            .map_err(|error| detail(&error))?;
        let (client, mut connection) = connected;
        let (heard_tell, mut heard) = mpsc::channel(MOST_NOTICES);
        let listening = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(told))) => {
                        if heard_tell.send(told.payload().to_owned()).await.is_err() {
                            return None;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Some(detail(&error)),
                    None => return None,
                }
            }
        });
        let listen = format!("LISTEN {CHANNEL}");
        client
            .batch_execute(&listen)
            .await
            .map_err(|error| detail(&error))?;
        // What was told while nobody listened is unknown.
        let _ = self.notices.send(Notice::Anything);
        let mut ask = tokio::time::interval(CLOCK_EVERY);
        loop {
            tokio::select! {
                payload = heard.recv() => match payload {
                    Some(payload) => self.hear(&payload),
                    None => {
                        let ended = listening.await.ok().flatten();
                        return Err(ended.unwrap_or_else(|| "it was closed".to_owned()));
                    }
                },
                notice = self.waiting.recv() => {
                    let Some(first) = notice else { return Ok(()) };
                    let payload = self.payload(first);
                    let notify = "SELECT pg_notify('taskwright_queue', $1)";
                    let sent = timeout(OPERATION_TIME, client.execute(notify, &[&payload])).await;
                    sent.map_err(|_| "no answer".to_owned())?.map_err(|error| detail(&error))?;
                    // What comes meanwhile goes together: under load notices are many, and each
                    // sending takes from the server what claims need.
                    tokio::time::sleep(BETWEEN_NOTIFICATIONS).await;
                }
                _ = ask.tick() => {
                    let told = timeout(OPERATION_TIME, server_time(&client)).await;
                    let told = told.map_err(|_| "no answer".to_owned())?;
                    self.clock.refer(told.map_err(|error| detail(&error))?);
                }
            }
        }
    }

    /// Everything that waits, as one payload.
    fn payload(&mut self, first: Notice) -> String {
        let mut work = false;
        let mut anything = false;
        let mut tasks: HashSet<TaskId> = HashSet::new();
        let mut next = Some(first);
        while let Some(notice) = next {
            match notice {
                Notice::Work => work = true,
                Notice::Anything => anything = true,
                Notice::Task(task) => drop(tasks.insert(task)),
            }
            if tasks.len() >= TASKS_A_NOTIFICATION {
                break;
            }
            next = self.waiting.try_recv().ok();
        }
        let mut payload = self.sender.clone();
        if work {
            payload.push_str(" W");
        }
        if anything {
            payload.push_str(" A");
        }
        for task in tasks {
            payload.push(' ');
            payload.push_str(&task.to_string());
        }
        payload
    }

    /// Hands on what another daemon told.
    fn hear(&self, payload: &str) {
        let mut words = payload.split(' ');
        if words.next() == Some(self.sender.as_str()) {
            return;
        }
        for word in words {
            let notice = match word {
                "W" => Notice::Work,
                "A" => Notice::Anything,
                task => match TaskId::parse(task) {
                    Ok(task) => Notice::Task(task),
                    Err(_) => Notice::Anything,
                },
            };
            let _ = self.notices.send(notice);
        }
    }
}
