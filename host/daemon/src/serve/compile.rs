//! Compiling plugins in a child process with limits of its own.
//!
//! Cranelift on hostile input may take any time and memory. The child is this very program
//! (`taskwright compile-component`): the component goes in on standard input, machine code
//! comes out on standard output, and nothing else is shared with it.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use rustix::process::{Resource, Rlimit, setrlimit};
use taskwright_engine::{CompileError, Compiler, compile_component};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::exit::Code;

/// How long a compilation may take.
const MOST_TIME: Duration = Duration::from_secs(120);
/// How much processor time the child has, on all its threads together.
const MOST_CPU_SECONDS: u64 = 240;
/// How much address space the child has.
const MOST_MEMORY: u64 = 4 << 30;
/// The largest component that the child reads.
const MOST_COMPONENT: u64 = 256 << 20;
/// The largest code that is taken from it.
const MOST_CODE: u64 = 512 << 20;
/// How much of its complaints is read.
const MOST_COMPLAINT: u64 = 16 << 10;

/// The exit code by which the child says that the component is at fault.
const BAD_COMPONENT: Code = Code(3);

/// Compiles in a child process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChildCompiler;

impl Compiler for ChildCompiler {
    fn compile(&self, component: Arc<[u8]>) -> BoxFuture<'_, Result<Vec<u8>, CompileError>> {
        Box::pin(async move {
            let mut child = start().map_err(|error| unavailable(format!("start it: {error}")))?;
            tokio::time::timeout(MOST_TIME, converse(&mut child, &component))
                .await
                .map_err(|_| unavailable(format!("it took more than {} s", MOST_TIME.as_secs())))?
        })
    }
}

fn unavailable(detail: String) -> CompileError {
    CompileError::Unavailable { detail }
}

/// The one process that the daemon starts by itself: no task, but a tool with a pipe at each
/// end.
fn start() -> std::io::Result<Child> {
    // By this name it is the very file that runs, even if another was put in its place: code
    // of another build would be refused, or worse, not be.
    Command::new("/proc/self/exe")
        .arg("compile-component")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

async fn converse(child: &mut Child, component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(output), Some(complaints)) = pipes else {
        return Err(unavailable("it has no pipes".to_owned()));
    };
    let write = async {
        let written = input.write_all(component).await;
        drop(input);
        written
    };
    let (mut code, mut complaint) = (Vec::new(), Vec::new());
    let mut output = output.take(MOST_CODE + 1);
    let mut complaints = complaints.take(MOST_COMPLAINT);
    // All three at once: whoever is not listened to stops working.
    let (written, read, _) = tokio::join!(
        write,
        output.read_to_end(&mut code),
        complaints.read_to_end(&mut complaint),
    );
    let status = child
        .wait()
        .await
        .map_err(|error| unavailable(format!("wait for it: {error}")))?;
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    match status.code() {
        Some(0) => {}
        Some(code) if code == i32::from(BAD_COMPONENT.0) => {
            return Err(CompileError::Component { detail: complaint });
        }
        _ => return Err(unavailable(format!("it ended with {status}: {complaint}"))),
    }
    written.map_err(|error| unavailable(format!("write to it: {error}")))?;
    read.map_err(|error| unavailable(format!("read from it: {error}")))?;
    if code.len() as u64 > MOST_CODE {
        return Err(unavailable("its answer is too large".to_owned()));
    }
    Ok(code)
}

/// The child's side: `taskwright compile-component`.
///
/// # Errors
/// When the limits cannot be set or a pipe breaks.
pub(crate) fn run_child() -> anyhow::Result<Code> {
    limit(Resource::As, MOST_MEMORY)?;
    limit(Resource::Cpu, MOST_CPU_SECONDS)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    let mut component = Vec::new();
    std::io::stdin()
        .lock()
        .take(MOST_COMPONENT)
        .read_to_end(&mut component)
        .context("read the component")?;
    match compile_component(&component) {
        Ok(code) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&code)
                .and_then(|()| out.flush())
                .context("write the code")?;
            Ok(Code::DONE)
        }
        Err(CompileError::Component { detail }) => {
            crate::output::note(&detail);
            Ok(BAD_COMPONENT)
        }
        Err(error @ CompileError::Unavailable { .. }) => Err(error.into()),
    }
}

fn limit(resource: Resource, most: u64) -> anyhow::Result<()> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit).context("limit the compiler")
}
