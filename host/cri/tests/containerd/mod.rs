//! The real container runtime, and how tests use it.

mod ends;
mod exec;
mod images;
mod limits;
mod output;
mod registry;
mod removal;
mod restarts;
mod scene;
