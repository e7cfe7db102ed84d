//! The policy `gatekeeper`: who runs what, as whom, with how much memory.
//!
//! This file asks the host. What to answer is decided in `decide.rs`, whose tests run natively.

mod decide;

/// `wit/` as Rust.
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "policy-plugin" });
}

use bindings::exports::taskwright::plugin::policy::{Description, Guest, Request, Verdict};
use bindings::taskwright::plugin::settings;

struct Plugin;

impl Guest for Plugin {
    fn describe() -> Description {
        Description {
            name: "gatekeeper".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn review(request: Request) -> Result<Verdict, String> {
        let rules = decide::Rules::read(settings::get)?;
        decide::verdict(&rules, &request)
    }
}

bindings::export!(Plugin with_types_in bindings);
