//! Arrays or envelopes: which of the two a list is answered as.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// Marks the routes under the prefix.
#[derive(Clone, Copy)]
pub(super) struct Enveloped;

/// Which base a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The documented paths at the root.
    Root,
    /// The prefix, where the programs' shape is honoured.
    Prefix,
}

impl<S: Sync> FromRequestParts<S> for Base {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(match parts.extensions.get::<Enveloped>() {
            Some(_) => Self::Prefix,
            None => Self::Root,
        })
    }
}
