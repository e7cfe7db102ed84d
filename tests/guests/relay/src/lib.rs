//! A good runtime as others write them: it runs the task's command and tells it which of its
//! versions did, in `RELAY_VERSION`. Its configuration may add `greeting`.
//!
//! The version is a setting, so that tests have many versions of one component; and [`BUILD`] is a
//! text that tests replace in its bytes. The setting `trap` makes every start fail; `twice` lets it
//! look at its version when a start begins and again after it waited for the host, and tell both in
//! `RELAY_SEEN`.

use taskwright_plugin_sdk::command::{self, KIND, MAIN};
use taskwright_plugin_sdk::{
    Description, EnvVar, Event, Failure, Problem, Runtime, Step, Task, export, process, settings,
    units,
};

/// Which component this is.
static BUILD: [u8; 16] = *b"relay-build-0000";

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {"greeting": {"type": "string", "maxLength": 20}},
    "additionalProperties": false
}"#;

struct Relay;

impl Runtime for Relay {
    fn describe() -> Description {
        Description {
            name: "relay".to_owned(),
            version: version(),
            kinds: vec![KIND.to_owned()],
            config_schema: SCHEMA.to_owned(),
        }
    }

    fn probe() -> Result<(), String> {
        Ok(())
    }

    fn validate(task: Task) -> Result<(), Vec<Problem>> {
        let problems = command::problems(&task);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn start(task: Task) -> Result<Step, Failure> {
        assert!(settings::get("trap").is_none(), "told to trap");
        let config = task.config.clone();
        let mut request = command::spawn_request(task)?;
        let seen = match settings::get("twice") {
            Some(_) => {
                let first = seen();
                // Nothing is there to be stopped; what counts is that the host takes its time.
                let _ = units::stop("nothing", 0);
                format!("{first} {}", seen())
            }
            None => String::new(),
        };
        for (name, value) in [
            ("RELAY_VERSION", version()),
            ("RELAY_CONFIG", config),
            ("RELAY_SEEN", seen),
        ] {
            let name = name.to_owned();
            request.env.push(EnvVar { name, value });
        }
        command::after_spawn(process::spawn(MAIN, &request))
    }

    fn on_event(_: Task, _: Vec<u8>, event: Event) -> Result<Step, Failure> {
        command::hear(event)
    }
}

export!(Relay);

fn version() -> String {
    settings::get("version").unwrap_or_else(|| "1".to_owned())
}

/// Version and component, as they are now.
fn seen() -> String {
    let build = std::hint::black_box(&BUILD);
    format!("{}/{}", version(), String::from_utf8_lossy(build))
}
