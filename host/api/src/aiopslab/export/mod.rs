//! Everything that is kept of tasks, streamed for whoever makes data sets of it.
//!
//! One walk through the order of ends, told in one of four forms. A page is in memory at a
//! time, and no more. What breaks is recognised: a whole answer in lines ends in a line that
//! says so, a document closes its braces, a Parquet file has its footer, and the connection
//! of a broken one is cut.
//!
//! | module | about |
//! |---|---|
//! | `query` | what is asked for, and the cursor |
//! | `walk` | page by page, through the filters, into a form |
//! | `form` | what a form has to tell |
//! | `lines` | `chat` and `tasks`: a row a line |
//! | `document` | `aiopslab`: the document of the original's export script |
//! | `columns` | `parquet` |
//! | `text` | JSON, written into a buffer that is there |

mod columns;
mod document;
mod form;
mod lines;
mod query;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures::StreamExt as _;
use tokio::sync::{Semaphore, mpsc};

use super::read::Words;
use super::shape::Base;
use super::view::ErrorView;
use crate::native::Shared;
use crate::problem::Problem;
use form::Form;
use query::{Asked, Format};
use walk::{Broken, Walk};

pub use columns::cursor_of;

/// Exports that run at a time.
const MOST_AT_A_TIME: usize = 8;
static PLACES: Semaphore = Semaphore::const_new(MOST_AT_A_TIME);
/// Pieces that wait for a slow reader.
const PIECES_WAITING: usize = 2;

/// Export what ended, in the order in which it did.
///
/// `chat` is a line for each conversation, `tasks` a line for each task with its attempts and
/// steps, both as JSON with a last line `{"export": "complete", "rows", "cursor"}`; `aiopslab` is
/// one document of tasks with their lines and conversations; `parquet` has the rows of `chat`, and
/// the cursor in its metadata as `taskwright.cursor`. Each row says whose doing the end was
/// (`cause`) and whether it may be learned from (`validity`: `valid`, `invalid` or `truncated`).
/// An export goes on behind any row's `cursor`; what ends meanwhile comes behind everything else.
#[utoipa::path(
    get, path = "/api/v1/export", tag = "queue",
    params(
        ("format" = Option<String>, Query, description = "`chat` (by default), `tasks`, `aiopslab` or `parquet`"),
        ("cursor" = Option<String>, Query, description = "Only what is behind it: the cursor of a row, or of the end of an export"),
        ("status" = Option<String>, Query, description = "Only tasks that ended so"),
        ("problem" = Option<String>, Query, description = "Only this problem, or those that match a pattern with `*`, `?` or `[`"),
        ("model" = Option<String>, Query, description = "Only conversations with this model; of tasks, those whose submitter named it or that have such a conversation"),
        ("worker" = Option<String>, Query, description = "Only tasks that this worker held last"),
        ("validity" = Option<String>, Query, description = "Only rows with this mark: `valid`, `invalid` or `truncated`"),
        ("since" = Option<String>, Query, description = "Only tasks that ended then or later"),
        ("until" = Option<String>, Query, description = "Only tasks that ended before"),
        ("ended_only" = Option<bool>, Query, description = "With `false`, tasks that have not ended follow at the end, and come again once they have"),
        ("continues" = Option<u64>, Query, description = "Of `aiopslab`: the answer is the rest of a document that holds so many tasks already"),
    ),
    responses(
        (status = 200, description = "Rows", content(
            (String = "application/x-ndjson"), (String = "application/json"), (String = "application/vnd.apache.parquet"),
        )),
        (status = 422, description = "Not a query", body = ErrorView<'static>),
        (status = 429, description = "As many exports run as may", body = ErrorView<'static>),
    )
)]
pub(super) async fn export(
    State(state): Shared,
    base: Base,
    Query(words): Query<Words>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Asked::read(&state, &words)?;
    let place = PLACES.try_acquire().map_err(|_| {
        let told = format!("{MOST_AT_A_TIME} exports are running, as many as may");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, told).retry_after(5)
    })?;
    let kind = match asked.format {
        Format::Chat | Format::Tasks => "application/x-ndjson",
        Format::Document => "application/json",
        Format::Columns => "application/vnd.apache.parquet",
    };
    let form: Box<dyn Form> = match asked.format {
        Format::Chat => Box::new(lines::Chat::default()),
        Format::Tasks => Box::new(lines::Tasks::default()),
        Format::Document => Box::new(document::Document::new(document::Head {
            exported_at: state.queue.now(),
            base_url: base_url(&headers, base),
            continues: asked.continues,
        })),
        Format::Columns => Box::new(columns::Columns::new(asked.validity)?),
    };
    let (pieces, mut waiting) = mpsc::channel::<Result<Bytes, Broken>>(PIECES_WAITING);
    // Before there is an answer, so that a store that is away is told.
    let walk = Walk::begin(state.clone(), asked, form, pieces).await?;
    let shutdown = state.shutdown.clone();
    // Nothing is spawned: whoever reads the body drives the walk, and ends it by going away.
    let walking = async move {
        let _place = place;
        tokio::select! {
            () = walk.run() => None,
            () = shutdown.cancelled() => Some(Err(Broken::GoingDown)),
        }
    };
    let walking = futures::stream::once(walking).filter_map(std::future::ready);
    let arriving = futures::stream::poll_fn(move |context| waiting.poll_recv(context));
    let mut response = Response::new(Body::from_stream(futures::stream::select(
        arriving, walking,
    )));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// What a client wrote before the paths, as far as its request tells.
fn base_url(headers: &HeaderMap, base: Base) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let prefix = if base == Base::Prefix {
        super::PREFIX
    } else {
        ""
    };
    format!("http://{}{prefix}", host.unwrap_or("localhost"))
}
