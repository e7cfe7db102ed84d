//! The only crate with unsafe code: Linux calls as safe functions.
