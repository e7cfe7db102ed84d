//! What observers are written with: the trait [`Observer`] and what it is told.

pub use crate::generated_observer::exports::taskwright::plugin::observer::{
    Description, Event, Guest as Observer,
};
