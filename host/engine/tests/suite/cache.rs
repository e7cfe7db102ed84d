//! Compiled code is kept, found, and not trusted when it should not be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::support::{Bench, cache_of, process, tight};

/// The one compiled component in a bench's cache.
fn only_file(bench: &Bench) -> PathBuf {
    let mut files = Vec::new();
    for directory in fs::read_dir(cache_of(bench.folder.path())).unwrap() {
        let directory = directory.unwrap().path();
        assert_eq!(
            fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
            0o700
        );
        for file in fs::read_dir(directory).unwrap() {
            files.push(file.unwrap().path());
        }
    }
    assert_eq!(files.len(), 1, "{files:?}");
    files.pop().unwrap()
}

/// A second engine on the same folder: how often does it compile?
async fn compiles_again(bench: &Bench) -> usize {
    let next = Bench::with(tight(), Arc::clone(&bench.folder));
    next.runtimes.load(process()).await.unwrap();
    next.check_that_others_work().await;
    next.compiler.runs()
}

#[tokio::test]
async fn a_second_start_compiles_nothing() {
    let bench = Bench::with_process().await;
    assert_eq!(bench.compiler.runs(), 1);
    only_file(&bench);
    assert_eq!(compiles_again(&bench).await, 0);
}

#[tokio::test]
async fn damaged_code_is_compiled_again() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 4] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        // In the middle, where there is code and no header that Wasmtime would check.
        |bytes| {
            let middle = bytes.len() / 2;
            bytes
                .iter_mut()
                .skip(middle)
                .take(1)
                .for_each(|byte| *byte ^= 1);
        },
        |bytes| bytes.push(0),
    ];
    for damage in damages {
        let bench = Bench::with_process().await;
        let file = only_file(&bench);
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        assert_eq!(compiles_again(&bench).await, 1);
        assert_eq!(compiles_again(&bench).await, 0);
    }
}

#[tokio::test]
async fn a_link_in_the_cache_is_not_followed() {
    let bench = Bench::with_process().await;
    let file = only_file(&bench);
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert_eq!(compiles_again(&bench).await, 1);
}

#[tokio::test]
async fn a_cache_that_others_may_enter_is_not_used() {
    let bench = Bench::with_process().await;
    let root = cache_of(bench.folder.path());
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(compiles_again(&bench).await, 1);
}

#[tokio::test]
async fn a_cache_that_cannot_be_made_is_no_error() {
    let bench = Bench::new();
    let root = cache_of(bench.folder.path());
    fs::remove_dir_all(&root).unwrap();
    fs::write(&root, b"a file").unwrap();
    assert_eq!(compiles_again(&bench).await, 1);
}
