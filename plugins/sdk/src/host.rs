//! The host's functions as plugins call them: the host's own in a component, those of
//! [`crate::testing`] in a program of this machine, as `cargo test` makes it.

/// A function of the host, and what stands in for it in tests.
macro_rules! host {
    ($interface:ident: $($(#[$doc:meta])* fn $name:ident($($word:ident: $kind:ty),*) $(-> $answer:ty)?;)*) => {
        $(
            $(#[$doc])*
            pub fn $name($($word: $kind),*) $(-> $answer)? {
                #[cfg(target_family = "wasm")]
                {
                    crate::generated::taskwright::plugin::$interface::$name($($word),*)
                }
                #[cfg(not(target_family = "wasm"))]
                {
                    crate::testing::double(|host| host.$interface().$name($($word),*))
                }
            }
        )*
    };
}

/// Processes of the host, as children of its supervisor. Needs the grant `process`.
pub mod process {
    use crate::{SpawnError, SpawnRequest, Spawned};

    host! { process:
        /// Starts a unit, or finds the one this attempt already started under this word.
        ///
        /// # Errors
        /// Why nothing was started.
        fn spawn(unit: &str, request: &SpawnRequest) -> Result<Spawned, SpawnError>;
    }
}

/// What was started, whatever it is. Needs no grant.
pub mod units {
    pub use crate::generated::taskwright::plugin::units::Error;

    host! { units:
        /// Asks for the stop of a unit: TERM, KILL after the grace, the whole tree. Its end follows.
        ///
        /// # Errors
        /// Why it was not asked to.
        fn stop(unit: &str, grace_ms: u64) -> Result<(), Error>;
        /// Sends a signal to a unit's main process.
        ///
        /// # Errors
        /// Why it was not sent.
        fn signal(unit: &str, number: u32) -> Result<(), Error>;
    }
}

/// What the operator wrote under `[settings]`. Needs no grant.
pub mod settings {
    host! { settings:
        /// The value of a key, as text.
        fn get(key: &str) -> Option<String>;
    }
}

/// Lines for the operator's log. Needs no grant.
pub mod log {
    pub use crate::generated::taskwright::plugin::log::Level;

    host! { log:
        /// Writes one line.
        fn write(level: Level, message: &str);
    }
}

/// What people see of an attempt beside its state. Needs no grant.
pub mod status {
    pub use crate::generated::taskwright::plugin::status::{Part, PartEnd, PartState};

    host! { status:
        /// A sentence: what the attempt is doing or waiting for.
        fn note(text: &str);
        /// All the parts, in order.
        fn parts(all: &[Part]);
    }
}

/// Small files of the task's own. Needs the grant `files`.
pub mod files {
    pub use crate::generated::taskwright::plugin::files::Error;

    host! { files:
        /// Up to `length` bytes from `offset`; empty at the end.
        ///
        /// # Errors
        /// Why it could not be read.
        fn read(path: &str, offset: u64, length: u32) -> Result<Vec<u8>, Error>;
        /// Replaces a file whole.
        ///
        /// # Errors
        /// Why it could not be written.
        fn write(path: &str, bytes: &[u8]) -> Result<(), Error>;
        /// Removes a file. Removing what is not there is no error.
        ///
        /// # Errors
        /// Why it could not be removed.
        fn remove(path: &str) -> Result<(), Error>;
    }
}

/// Values that the operator lends by reference. Needs the table `[secrets]`.
pub mod secrets {
    pub use crate::generated::taskwright::plugin::secrets::Error;

    host! { secrets:
        /// The value of a secret.
        ///
        /// # Errors
        /// Why it is not had.
        fn get(name: &str) -> Result<Vec<u8>, Error>;
    }
}
