//! The small process that owns task processes, and the client the daemon speaks to it with.
