//! Statements, as both databases take them.
//!
//! Operations are written once, over [`Sql`]: numbered parameters `?1`, whole numbers
//! of 64 bits, texts, and double-precision numbers are all that they need. Where the
//! databases differ in words, an operation asks [`Sql::POSTGRES`].

use std::fmt;

use taskwright_queue::StoreError;

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Real(f64),
    Text(&'a str),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
}

/// One line of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Row(pub(crate) Vec<Cell>);

impl Row {
    fn take(&mut self, column: usize) -> Cell {
        match self.0.get_mut(column) {
            Some(cell) => std::mem::replace(cell, Cell::Null),
            None => Cell::Null,
        }
    }

    pub(crate) fn int(&mut self, column: usize) -> Result<i64, SqlError> {
        self.opt_int(column)?
            .ok_or_else(|| shape(column, "a number", &Cell::Null))
    }

    pub(crate) fn opt_int(&mut self, column: usize) -> Result<Option<i64>, SqlError> {
        match self.take(column) {
            Cell::Null => Ok(None),
            Cell::Int(number) => Ok(Some(number)),
            other => Err(shape(column, "a whole number", &other)),
        }
    }

    pub(crate) fn real(&mut self, column: usize) -> Result<Option<f64>, SqlError> {
        match self.take(column) {
            Cell::Null => Ok(None),
            Cell::Real(number) => Ok(Some(number)),
            // SQLite keeps 5.0 as 5 where that is shorter.
            #[expect(clippy::cast_precision_loss, reason = "it was a double")]
            Cell::Int(number) => Ok(Some(number as f64)),
            other @ Cell::Text(_) => Err(shape(column, "a number", &other)),
        }
    }

    pub(crate) fn text(&mut self, column: usize) -> Result<String, SqlError> {
        self.opt_text(column)?
            .ok_or_else(|| shape(column, "a text", &Cell::Null))
    }

    pub(crate) fn opt_text(&mut self, column: usize) -> Result<Option<String>, SqlError> {
        match self.take(column) {
            Cell::Null => Ok(None),
            Cell::Text(text) => Ok(Some(text)),
            other => Err(shape(column, "a text", &other)),
        }
    }

    /// A counter or number of ours, which is never negative.
    pub(crate) fn count(&mut self, column: usize) -> Result<u64, SqlError> {
        Ok(u64::try_from(self.int(column)?).unwrap_or(0))
    }

    /// A counter that may be missing.
    pub(crate) fn opt_small(&mut self, column: usize) -> Result<Option<u32>, SqlError> {
        let found = self.opt_int(column)?;
        Ok(found.map(|number| u32::try_from(number).unwrap_or(0)))
    }

    /// How many bytes of text it holds.
    pub(crate) fn size(&self) -> usize {
        let sizes = self.0.iter().map(|cell| match cell {
            Cell::Text(text) => text.len(),
            Cell::Null | Cell::Int(_) | Cell::Real(_) => 8,
        });
        sizes.sum()
    }

    /// See [`Row::count`].
    pub(crate) fn small(&mut self, column: usize) -> Result<u32, SqlError> {
        Ok(u32::try_from(self.int(column)?).unwrap_or(0))
    }
}

fn shape(column: usize, wanted: &str, found: &Cell) -> SqlError {
    SqlError {
        kind: SqlFault::Other,
        message: format!("column {column} of an answer should be {wanted}, and is {found:?}"),
    }
}

/// Why a statement failed.
#[derive(Clone, Debug)]
pub(crate) struct SqlError {
    pub(crate) kind: SqlFault,
    pub(crate) message: String,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqlFault {
    /// Somebody else was there first: the same operation, made again, finds what they did.
    Raced,
    /// There is no room.
    DiskFull,
    /// The database cannot be reached, or was not in time.
    Away,
    /// Anything else.
    Other,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why an operation failed.
#[derive(Clone, Debug)]
pub(crate) enum OpError {
    /// A statement did.
    Sql(SqlError),
    /// It was decided so, by what is on record.
    Refused(StoreError),
}

impl From<SqlError> for OpError {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for OpError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<OpError> for StoreError {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Refused(refused) => refused,
            OpError::Sql(error) => Self::Failed {
                disk_full: error.kind == SqlFault::DiskFull,
                message: error.message,
            },
        }
    }
}

/// The beginning of an answer.
#[derive(Debug, Default)]
pub(crate) struct Within {
    pub(crate) rows: Vec<Row>,
    /// How many bytes they hold.
    pub(crate) bytes: usize,
    /// Whether there may be more.
    pub(crate) cut: bool,
}

impl Within {
    /// Takes a row; whether there is room for another.
    pub(crate) fn push(&mut self, row: Row, most: usize) -> bool {
        self.bytes = self.bytes.saturating_add(row.size());
        self.rows.push(row);
        self.cut = self.bytes > most;
        !self.cut
    }
}

/// A connection, alone or within a transaction.
pub(crate) trait Sql: Send {
    /// Whether it is PostgreSQL that listens.
    const POSTGRES: bool;

    /// Runs a statement and reads its answer.
    fn rows(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, SqlError>> + Send;

    /// Runs a statement and reads its answer until that has more than so many bytes: one row at
    /// least. What is behind that is never held in memory.
    fn rows_within(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        bytes: usize,
    ) -> impl Future<Output = Result<Within, SqlError>> + Send;

    /// Runs a statement; answers how many rows it changed.
    fn run(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, SqlError>> + Send;

    /// Runs a statement whose answer has one row at most.
    fn row(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Option<Row>, SqlError>> + Send {
        async { Ok(self.rows(sql, values).await?.into_iter().next()) }
    }
}

/// What an operation needs around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It only reads.
    Read,
    /// It only reads, and may read a part of a long answer: what is behind that part is left where
    /// it is.
    ReadParts,
    /// Its last statement alone changes anything, so it needs no transaction.
    Single,
    /// It changes several things, all or none.
    Transaction,
}

/// One whole operation. It may be run more than once, when others raced with it.
pub(crate) trait Operation: Send + Sync + 'static {
    /// What it answers.
    type Output: Send + 'static;
    /// What it needs around it.
    const MODE: Mode;
    /// Its name, in metrics.
    const NAME: &'static str;

    /// Runs it.
    fn run<S: Sql>(
        &self,
        sql: &mut S,
    ) -> impl Future<Output = Result<Self::Output, OpError>> + Send;
}

/// How often an operation is made again when others raced with it.
pub(crate) const MOST_RACES: u32 = 8;
