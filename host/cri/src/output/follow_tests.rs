//! The same output comes out of a log whatever happens in between.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use taskwright_capability::OutputSink;

use super::*;

/// Output files in memory, which can be made to fail after some bytes.
#[derive(Default)]
struct FakeSink {
    written: Mutex<HashMap<OutputStream, Vec<u8>>>,
    room: Mutex<Option<usize>>,
}

impl FakeSink {
    fn text(&self, stream: OutputStream) -> String {
        let written = self.written.lock();
        let bytes = written.get(&stream).cloned().unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    }
}

impl OutputSink for FakeSink {
    fn length(&self, _: &Path, stream: OutputStream) -> io::Result<u64> {
        let written = self.written.lock();
        Ok(written.get(&stream).map_or(0, |bytes| bytes.len() as u64))
    }

    fn append(&self, _: &Path, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        let mut room = self.room.lock();
        let fits = room.unwrap_or(usize::MAX).min(bytes.len());
        if let Some(room) = room.as_mut() {
            *room -= fits;
        }
        let mut written = self.written.lock();
        let file = written.entry(stream).or_default();
        file.extend_from_slice(bytes.get(..fits).unwrap());
        if fits < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

struct Scene {
    place: tempfile::TempDir,
    sink: Arc<FakeSink>,
}

impl Scene {
    fn new() -> Self {
        Self {
            place: tempfile::tempdir().unwrap(),
            sink: Arc::default(),
        }
    }

    /// As after a crash: nothing is known but what is on disk.
    fn book(&self) -> Book {
        Book::open(self.place.path(), Path::new("/t"), self.sink.clone()).unwrap()
    }

    fn follower(&self, book: &Book, unit: &str) -> Follower {
        let unit = UnitName::parse(unit).unwrap();
        Follower::new(self.place.path(), unit, book.clone())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn log(&self, name: &str, text: &str) {
        use std::io::Write as _;
        let mut options = fs::File::options();
        let mut file = options
            .append(true)
            .create(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn stdout(&self) -> String {
        self.sink.text(OutputStream::Stdout)
    }
}

fn carry_all(follower: &mut Follower) {
    while follower.carry().unwrap() == Progress::Some {}
}

#[test]
fn output_goes_on_exactly_after_a_crash() {
    let scene = Scene::new();
    let book = scene.book();
    scene.follower(&book, "main").prepare().unwrap();
    scene.log("main.log", "T stdout F one\nT stderr F e\nT stdout P tw");
    carry_all(&mut scene.follower(&book, "main"));
    assert_eq!(scene.stdout(), "one\ntw");
    scene.log("main.log", "o\nT stdout F three\n");
    carry_all(&mut scene.follower(&scene.book(), "main"));
    carry_all(&mut scene.follower(&scene.book(), "main"));
    assert_eq!(scene.stdout(), "one\ntwothree\n");
    assert_eq!(scene.sink.text(OutputStream::Stderr), "e\n");
}

#[test]
fn a_full_disk_loses_and_doubles_nothing() {
    let scene = Scene::new();
    let book = scene.book();
    let mut main = scene.follower(&book, "main");
    let mut side = scene.follower(&book, "side");
    main.prepare().unwrap();
    side.prepare().unwrap();
    scene.log("main.log", "T stdout F 0123456789\n");
    *scene.sink.room.lock() = Some(4);
    assert!(main.carry().is_err());
    *scene.sink.room.lock() = None;
    // Another container of the attempt goes on first.
    scene.log("side.log", "T stdout F side\n");
    carry_all(&mut side);
    carry_all(&mut main);
    assert_eq!(scene.stdout(), "0123side\n456789\n");
}

#[test]
fn containers_that_take_turns_are_told_apart_after_a_crash() {
    let scene = Scene::new();
    let book = scene.book();
    let mut main = scene.follower(&book, "main");
    let mut side = scene.follower(&book, "side");
    main.prepare().unwrap();
    side.prepare().unwrap();
    scene.log("main.log", "T stdout F m1\n");
    carry_all(&mut main);
    scene.log("side.log", "T stdout F s1\n");
    carry_all(&mut side);
    scene.log("main.log", "T stdout F m2\n");
    carry_all(&mut main);
    let again = scene.book();
    scene.log("side.log", "T stdout F s2\n");
    carry_all(&mut scene.follower(&again, "side"));
    carry_all(&mut scene.follower(&again, "main"));
    assert_eq!(scene.stdout(), "m1\ns1\nm2\ns2\n");
}

#[test]
fn a_container_that_comes_later_takes_nothing_of_the_others() {
    let scene = Scene::new();
    let book = scene.book();
    let mut main = scene.follower(&book, "main");
    main.prepare().unwrap();
    scene.log("main.log", "T stdout F m1\n");
    carry_all(&mut main);
    scene.follower(&book, "late").prepare().unwrap();
    let again = scene.book();
    scene.log("late.log", "T stdout F l1\n");
    carry_all(&mut scene.follower(&again, "main"));
    carry_all(&mut scene.follower(&again, "late"));
    assert_eq!(scene.stdout(), "m1\nl1\n");
}

/// Does the steps of a rotation up to `crash`, forgets everything, and goes on.
fn check_rotation(crash: usize) {
    let scene = Scene::new();
    let book = scene.book();
    let mut follower = scene.follower(&book, "main");
    follower.prepare().unwrap();
    scene.log("main.log", "T stdout F one\n");
    carry_all(&mut follower);
    let steps: [&dyn Fn(&mut Follower); 6] = [
        &|follower| follower.rotate().unwrap(),
        &|_| scene.log("main.log.0", "T stdout F two\n"),
        &|_| scene.log("main.log", "T stdout F three\n"),
        &carry_all,
        &|follower| follower.turn().unwrap(),
        &carry_all,
    ];
    for step in steps.iter().take(crash) {
        step(&mut follower);
    }
    let mut follower = scene.follower(&scene.book(), "main");
    carry_all(&mut follower);
    for step in steps.iter().skip(crash) {
        // A new life begins a rotation of its own only when the log is long again.
        step(&mut follower);
        carry_all(&mut follower);
    }
    assert_eq!(
        scene.stdout(),
        "one\ntwo\nthree\n",
        "crash before step {crash}"
    );
    assert!(!scene.path("main.log.0").exists());
}

#[test]
fn a_crash_at_any_step_of_a_rotation_changes_nothing() {
    (0..=6).for_each(check_rotation);
}

#[test]
fn a_part_that_was_read_and_not_removed_is_not_read_again() {
    let scene = Scene::new();
    let book = scene.book();
    let mut follower = scene.follower(&book, "main");
    follower.prepare().unwrap();
    scene.log("main.log", "T stdout F one\n");
    carry_all(&mut follower);
    book.turn(&UnitName::parse("main").unwrap(), 1).unwrap();
    fs::rename(scene.path("main.log"), scene.path("main.log.0")).unwrap();
    scene.log("main.log", "T stdout F two\n");
    carry_all(&mut scene.follower(&scene.book(), "main"));
    assert_eq!(scene.stdout(), "one\ntwo\n");
    assert!(!scene.path("main.log.0").exists());
}

#[test]
fn a_log_that_was_made_shorter_is_read_on() {
    let scene = Scene::new();
    let book = scene.book();
    let mut follower = scene.follower(&book, "main");
    follower.prepare().unwrap();
    scene.log("main.log", "T stdout F one\nT stdout F two\n");
    carry_all(&mut follower);
    fs::write(scene.path("main.log"), "").unwrap();
    carry_all(&mut follower);
    scene.log("main.log", "T stdout F three\n");
    carry_all(&mut follower);
    assert_eq!(scene.stdout(), "one\ntwo\nthree\n");
}

#[test]
fn a_link_in_place_of_a_log_is_refused() {
    let scene = Scene::new();
    let book = scene.book();
    fs::write(scene.path("secret"), "T stdout F secret\n").unwrap();
    std::os::unix::fs::symlink(scene.path("secret"), scene.path("main.log")).unwrap();
    assert!(scene.follower(&book, "main").carry().is_err());
    assert_eq!(scene.stdout(), "");
}

#[test]
fn a_closed_book_takes_nothing_more() {
    let scene = Scene::new();
    let book = scene.book();
    let mut follower = scene.follower(&book, "main");
    follower.prepare().unwrap();
    book.close();
    scene.log("main.log", "T stdout F one\n");
    assert!(follower.carry().is_err());
    assert_eq!(scene.stdout(), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Two containers print by turns, one digits and one letters; the disk fills up, logs are
    /// rotated and the daemon dies now and then. Each one's output comes out whole and in order.
    #[test]
    fn whatever_happens_each_container_keeps_its_output(
        turns in prop::collection::vec((any::<bool>(), 1_usize..6, 0_u8..6), 1..40),
    ) {
        let scene = Scene::new();
        let names = ["main", "side"];
        let mut book = scene.book();
        for name in names {
            scene.follower(&book, name).prepare().unwrap();
        }
        let mut followers = names.map(|name| scene.follower(&book, name));
        let (mut digits, mut letters, mut newlines) = (String::new(), String::new(), 0);
        for (turn, (digital, lines, what)) in turns.into_iter().enumerate() {
            let [main, side] = &mut followers;
            let (follower, log, printed) = match digital {
                true => (main, "main.log", &mut digits),
                false => (side, "side.log", &mut letters),
            };
            for line in 0..lines {
                let number = turn * 10 + line;
                let text = match digital {
                    true => format!("{number}"),
                    false => format!("{number:x}").replace(|one: char| one.is_ascii_digit(), "z"),
                };
                printed.push_str(&text);
                let full = line % 2 == 0;
                newlines += usize::from(full);
                let tag = if full { "F" } else { "P" };
                scene.log(log, &format!("T stdout {tag} {text}\n"));
            }
            match what {
                0 => {
                    *scene.sink.room.lock() = Some(3);
                    let _full = follower.carry();
                    *scene.sink.room.lock() = None;
                }
                1 => {
                    // What was carried over a moment before the crash.
                    let _carried = follower.carry();
                    book.close();
                    book = scene.book();
                    followers = names.map(|name| scene.follower(&book, name));
                }
                2 if !follower.is_rotated() => {
                    carry_all(follower);
                    follower.rotate().unwrap();
                    carry_all(follower);
                    scene.log(log, "");
                    follower.turn().unwrap();
                }
                _ => carry_all(follower),
            }
        }
        followers.iter_mut().for_each(carry_all);
        let told = scene.stdout();
        let only = |fits: fn(&char) -> bool| told.chars().filter(fits).collect::<String>();
        prop_assert_eq!(only(char::is_ascii_digit), digits);
        prop_assert_eq!(only(char::is_ascii_alphabetic), letters);
        prop_assert_eq!(told.matches('\n').count(), newlines);
    }
}
