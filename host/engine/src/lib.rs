//! The only crate that knows Wasmtime: components as strategies.
