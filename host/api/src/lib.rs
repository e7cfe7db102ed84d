//! The only crate that knows HTTP: dialects of the task API.
