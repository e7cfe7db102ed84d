//! `cargo xtask containerd`: a private containerd for trying container tasks, and the one of the
//! tests. All of the work is done by `xtask/containerd`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};
use taskwright_test_containerd::{Place, Status, Suite, environment, packages, service};
use tokio::signal::unix::{SignalKind, signal};

use crate::shell::target_dir;

const USAGE: &str = "\
usage: cargo xtask containerd <start|status|stop|wipe> [options]

  start    unpack containerd, make its images, start it; tell how to use it
  status   tell whether it answers
  stop     end it with all its containers, and take away what it left on the machine
  wipe     stop it, and remove its folder with programs and images

  --dir DIR      its folder, at most 80 bytes long (default: taskwright/containerd in cargo's
                 target directory, or a short one for temporary files)
  --suite NAME   where containerd is from: `best`, `own` (the machine's), or a Debian suite";

/// Does what `words` say.
pub(crate) fn containerd(words: &[String]) -> Result<()> {
    let (verb, options) = match words.split_first() {
        Some((verb, options)) => (verb.as_str(), options),
        None => bail!("{USAGE}"),
    };
    let (place, suite) = parse(options)?;
    match verb {
        "start" => start(&place, &suite),
        "status" => status(&place),
        "stop" => {
            println!("{}", stop(&place)?);
            Ok(())
        }
        "wipe" => {
            service::wipe(&place)?;
            println!("{} is gone", place.dir().display());
            Ok(())
        }
        _ => bail!("there is no verb {verb:?}\n\n{USAGE}"),
    }
}

/// The daemon's flags for the containerd that `start` started, if it answers.
pub(crate) fn flags_if_running() -> Option<Vec<String>> {
    let place = Place::near(&folder("containerd").ok()?).ok()?;
    let flags = service::flags(&place.socket());
    matches!(service::status(&place), Status::Answers(_))
        .then(|| flags.split(' ').map(str::to_owned).collect())
}

fn parse(words: &[String]) -> Result<(Place, Suite)> {
    let mut place = None;
    let mut suite = Suite::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = || format!("{word} wants a value\n\n{USAGE}");
        match word.as_str() {
            "--dir" => {
                let dir = words.next().with_context(value)?;
                place = Some(Place::new(std::path::absolute(dir)?)?);
            }
            "--suite" => suite = Suite::parse(words.next().with_context(value)?)?,
            other => bail!("there is no option {other:?}\n\n{USAGE}"),
        }
    }
    let place = match place {
        Some(place) => place,
        None => Place::near(&folder("containerd")?)?,
    };
    Ok((place, suite))
}

fn folder(name: &str) -> Result<PathBuf> {
    Ok(std::path::absolute(target_dir())?
        .join("taskwright")
        .join(name))
}

fn start(place: &Place, suite: &Suite) -> Result<()> {
    let ready = service::start(place, suite)?;
    tell_origin(&ready);
    println!("socket  {}", place.socket().display());
    let images = service::ctr(place, &["images", "ls", "--quiet"])?;
    // Each image is there once more by its digest.
    for image in images.lines().filter(|image| !image.starts_with("sha256:")) {
        println!("image   {image}");
    }
    println!("log     {}", place.log().display());
    println!(
        "\nA daemon with container tasks:\n  taskwright serve {}",
        service::flags(&place.socket())
    );
    println!("Tests by hand, without `cargo xtask test`:");
    for (name, value) in environment::of(place) {
        println!("  export {name}={}", value.display());
    }
    println!("And at the end:\n  {}", stop_command(place)?);
    Ok(())
}

/// The command that stops what was started here.
fn stop_command(place: &Place) -> Result<String> {
    let stop = "cargo xtask containerd stop";
    if *place == Place::near(&folder("containerd")?)? {
        return Ok(stop.to_owned());
    }
    Ok(format!("{stop} --dir {}", place.dir().display()))
}

/// Stops it, and says what there was to do. Traces of one that died are taken away as well.
fn stop(place: &Place) -> Result<String> {
    let before = service::status(place);
    service::stop(place)?;
    let dir = place.dir().display();
    Ok(match before {
        Status::Stopped => format!("nothing to stop: no containerd runs in {dir}"),
        Status::Answers(pid) | Status::Silent(pid) => {
            format!("stopped containerd, process {pid}, in {dir}")
        }
    })
}

fn tell_origin(ready: &service::Ready) {
    let packages::Unpacked {
        suite,
        version,
        fallback,
    } = &ready.unpacked;
    let how = if ready.was_running {
        "answers already"
    } else {
        "answers"
    };
    println!(
        "containerd {version} (suite: {suite}) {how}, process {}",
        ready.pid
    );
    if let Some(why) = fallback {
        println!("warning: it is the machine's own one, as another could not be had: {why}");
    }
}

fn status(place: &Place) -> Result<()> {
    let dir = place.dir().display();
    match service::status(place) {
        Status::Answers(pid) => {
            let socket = place.socket();
            println!("containerd, process {pid}, answers at {}", socket.display());
            Ok(())
        }
        Status::Silent(pid) => bail!(
            "containerd, process {pid}, does not answer; its log: {}",
            place.log().display()
        ),
        Status::Stopped => bail!("there is no containerd in {dir}"),
    }
}

/// The containerd of a run of the tests. Dropped, it is stopped.
#[derive(Debug)]
pub(crate) struct ForTests {
    /// Where it runs, or why none does.
    place: Result<Place, String>,
}

impl ForTests {
    /// Starts it. Where that is impossible there is none, and tests say why they are skipped;
    /// in CI it is an error.
    pub(crate) fn start() -> Result<Self> {
        match Self::try_start() {
            Ok(place) => Ok(Self { place: Ok(place) }),
            Err(error) if environment::is_ci() => {
                Err(error).context("in CI no test may be skipped, and some need a containerd")
            }
            Err(error) => {
                eprintln!("    tests with real containers will be skipped: {error:#}");
                let reason = format!("{error:#}").replace('\n', "; ");
                Ok(Self { place: Err(reason) })
            }
        }
    }

    fn try_start() -> Result<Place> {
        // Another one than a person's own, who may be using that.
        let place = Place::near(&folder("test-containerd")?)?;
        stop_at_signals(&place)?;
        // One that is left of a run that was killed has pods of that run.
        service::stop(&place)?;
        let ready = service::start(&place, &Suite::Best)?;
        tell_origin(&ready);
        Ok(place)
    }

    /// Tells a command that runs tests.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for name in [environment::SOCKET, environment::IMAGE, environment::DIR] {
            command.env_remove(name);
        }
        match &self.place {
            Ok(place) => command.envs(environment::of(place)),
            Err(reason) => command.env(environment::NONE, reason),
        }
    }

    /// Stops it where a failure of that is a failure of the run.
    pub(crate) fn stop(self) -> Result<()> {
        match &self.place {
            Ok(place) => service::stop(place).context("stop the containerd of the tests"),
            Err(_there_is_none) => Ok(()),
        }
    }
}

impl Drop for ForTests {
    fn drop(&mut self) {
        if let Ok(place) = &self.place
            && let Err(error) = service::stop(place)
        {
            eprintln!("warning: the containerd of the tests is not stopped: {error:#}");
        }
    }
}

/// From now on INT, TERM and HUP stop the containerd before they end this program.
///
/// By handlers, not by blocking signals for a thread that waits for them: what is blocked here
/// would be blocked in every program that is started, and no daemon would hear a TERM.
pub(crate) fn stop_at_signals(place: &Place) -> Result<()> {
    static ONCE: Once = Once::new();
    if ONCE.is_completed() {
        return Ok(());
    }
    let driver = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let [mut interrupt, mut terminate, mut hangup] = {
        let _entered = driver.enter();
        [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]
    };
    let place = place.clone();
    ONCE.call_once(|| {
        std::thread::spawn(move || {
            let kind = driver.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = hangup.recv() => SignalKind::hangup(),
                }
            });
            // Nobody is left to be told; the next start takes away what this leaves.
            let _ = service::stop(&place);
            std::process::exit(128 + kind.as_raw_value());
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn the_command_to_stop_names_the_folder_that_was_named() {
        let elsewhere = Place::new("/tmp/elsewhere").unwrap();
        let command = stop_command(&elsewhere).unwrap();
        assert_eq!(command, "cargo xtask containerd stop --dir /tmp/elsewhere");
        let usual = Place::near(&folder("containerd").unwrap()).unwrap();
        assert_eq!(stop_command(&usual).unwrap(), "cargo xtask containerd stop");
    }

    #[test]
    fn to_stop_what_does_not_run_is_no_error() {
        let never = Place::new(std::env::temp_dir().join("taskwright-never-started")).unwrap();
        let said = stop(&never).unwrap();
        assert!(said.starts_with("nothing to stop: "), "{said}");
    }
}
