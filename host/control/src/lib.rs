//! The control loop: one writer of state, and the ports it needs.

pub mod port;
