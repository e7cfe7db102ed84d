//! The observer `webhook`: it posts what happens to tasks to a URL.
//!
//! This file asks the host. What to say is decided in `decide.rs`, whose tests run natively;
//! `send.rs` sends it.

mod decide;
mod send;

/// `wit/` as Rust.
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "webhook" });
}

use bindings::exports::taskwright::plugin::observer::{Description, Event, Guest};
use bindings::taskwright::plugin::{secrets, settings};

/// The operator's word for what requests are signed with.
const KEY: &str = "key";

struct Plugin;

impl Guest for Plugin {
    fn describe() -> Description {
        Description {
            name: "webhook".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// An error keeps the event with the host, which tells it again after a pause.
    fn notice(event: Event) -> Result<(), String> {
        if !decide::is_wanted(settings::get("kinds").as_deref(), &event.kind) {
            return Ok(());
        }
        let url = settings::get("url");
        let target = decide::Target::parse(url.as_deref().unwrap_or_default())?;
        let key = secrets::get(KEY).map_err(|error| {
            use secrets::Error::{Denied, Other, Unavailable};
            let (Denied(why) | Unavailable(why) | Other(why)) = error;
            why
        })?;
        let message = decide::message(event, &key)?;
        let status = send::post(&target, &message)
            .map_err(|why| format!("{} gave no answer: {why}", target.authority))?;
        decide::taken(&target, status)
    }
}

bindings::export!(Plugin with_types_in bindings);
