//! Cranelift: a component in, machine code out.
//!
//! Wasmtime promises nothing about the time and memory that compiling hostile
//! input takes, so the daemon does it in a child process with limits of its
//! own, which calls [`compile_component`]. Tests do it in place.

use std::sync::Arc;

use futures::future::BoxFuture;

/// Why a component was not compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is not valid, or too much for the compiler.
    #[error("it does not compile: {detail}")]
    Component {
        /// What the compiler said.
        detail: String,
    },
    /// The compiler could not be run, or did not finish.
    #[error("the compiler could not do its work: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
    },
}

/// Compiles components, wherever that is done.
pub trait Compiler: Send + Sync + 'static {
    /// What [`compile_component`] answers for these bytes, from this very build of the
    /// program: the answer is run as machine code.
    fn compile(&self, component: Arc<[u8]>) -> BoxFuture<'_, Result<Vec<u8>, CompileError>>;
}

/// Compiles a component to machine code for this machine.
///
/// # Errors
/// [`CompileError`] with the compiler's own words.
pub fn compile_component(component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let engine = wasmtime::Engine::new(&crate::machine::settings()).map_err(|error| {
        CompileError::Unavailable {
            detail: format!("{error:#}"),
        }
    })?;
    engine
        .precompile_component(component)
        .map_err(|error| CompileError::Component {
            detail: format!("{error:#}"),
        })
}

/// Compiles in this process, on a thread for blocking work: for tests and for tools that end
/// after it anyway.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcessCompiler;

impl Compiler for InProcessCompiler {
    fn compile(&self, component: Arc<[u8]>) -> BoxFuture<'_, Result<Vec<u8>, CompileError>> {
        Box::pin(async move {
            tokio::task::spawn_blocking(move || compile_component(&component))
                .await
                .unwrap_or_else(|error| {
                    Err(CompileError::Unavailable {
                        detail: error.to_string(),
                    })
                })
        })
    }
}
