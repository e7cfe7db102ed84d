//! Durable records of tasks and events on SQLite.
