//! The plugins that are part of the product: compiled by the build, embedded here.
//!
//! A file of the same name in the plugin folder takes their place.

use taskwright_capability::Capability;

/// A plugin that every daemon has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Builtin {
    /// The name it gives itself, and under which the configuration knows it.
    pub(crate) name: &'static str,
    /// The component.
    pub(crate) component: &'static [u8],
    /// What it is lent unless the operator says otherwise.
    pub(crate) grants: &'static [Capability],
}

/// All of them.
pub(crate) const ALL: [Builtin; 4] = [
    Builtin {
        name: "process",
        component: include_bytes!(env!("BUILTIN_PROCESS")),
        grants: &[Capability::Process],
    },
    Builtin {
        name: "sidecar",
        component: include_bytes!(env!("BUILTIN_SIDECAR")),
        grants: &[Capability::Namespace],
    },
    Builtin {
        name: "container",
        component: include_bytes!(env!("BUILTIN_CONTAINER")),
        // It tells since when its parts are as they are.
        grants: &[Capability::Container, Capability::Clock],
    },
    Builtin {
        name: "echo",
        component: include_bytes!(env!("BUILTIN_ECHO")),
        grants: &[Capability::Process],
    },
];

/// The engine of scripts: no runtime by itself, but with each script of a plugin folder.
pub(crate) const SCRIPT_ENGINE: &[u8] = include_bytes!(env!("BUILTIN_SCRIPT"));

#[cfg(test)]
mod tests {
    //! What is built in works with what it is lent.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use taskwright_capability::Grants;

    use super::*;

    #[tokio::test]
    async fn each_is_lent_all_that_it_uses() {
        for ours in ALL {
            let grants = Grants::of(ours.grants);
            let component = ours.component.into();
            let found = taskwright_engine::inspect(component, ours.name, &grants).await;
            let found = found.unwrap();
            assert_eq!(found.refusals, [], "{}", ours.name);
            for capability in found.profile.may_use {
                assert!(grants.allows(capability), "{}: {capability}", ours.name);
            }
        }
    }
}
