//! Components of every released world, loaded and called for ever.

use std::sync::Arc;

use taskwright_control::port::{
    Observers, Plugins, Policies, PolicyVerdict, Role, Step, Strategies, StrategyEvent,
};
use taskwright_model::Outcome;

use crate::imports::{AT_ONCE, DISK, NoContainers, WAIT, calling_with};
use crate::roles::{notice, request};
use crate::support::{given, misbehaving, mischief, tight};

const RELEASED: [(&str, &[u8]); 1] = [(
    "0.1.0",
    include_bytes!("../../../../tests/compat/plugin/v0.1.0/everything.wasm"),
)];

fn roles<'a>() -> Vec<(&'a str, &'a str)> {
    vec![("policy", "misbehave"), ("observer", "misbehave")]
}

#[tokio::test]
async fn released_components_are_loaded_and_called_in_every_role() {
    for (version, component) in RELEASED {
        let mut source = misbehaving(&roles());
        source.component = component.into();
        let bench = calling_with(NoContainers::Refusing, tight(), source).await;
        let list = bench.runtimes.list().await;
        let found = list.iter().find(|info| info.name == "misbehave").unwrap();
        assert_eq!(
            found.roles,
            [Role::Runtime, Role::Policy, Role::Observer],
            "{version}"
        );
        let interface = format!("taskwright:plugin/runtime@{version}");
        assert!(found.exports.contains(&interface), "{found:?}");
        let task = given(mischief());
        let checked = bench.runtimes.validate(task.clone()).await;
        assert_eq!(checked, Ok(Vec::new()), "{version}");
        let begun = bench.runtimes.start(task.clone()).await.unwrap();
        let Step::Wait { state, .. } = begun.step else {
            panic!("{version}: {:?}", begun.step);
        };
        let event = StrategyEvent::Woke;
        let ended = bench.runtimes.on_event(task, state, event).await.unwrap();
        let zero = Outcome::Exited {
            code: 0,
            message: None,
        };
        assert_eq!(ended.step, Step::Done(zero), "{version}");
        let verdict = bench.runtimes.review("misbehave", request(1)).await;
        assert_eq!(verdict, Ok(PolicyVerdict::Allow), "{version}");
        let heard = bench.runtimes.notice("misbehave", notice()).await;
        assert_eq!(heard, Ok(()), "{version}");
    }
}

#[tokio::test]
async fn released_components_reach_every_function_of_the_host() {
    for (version, component) in RELEASED {
        for function in WAIT.into_iter().chain(DISK).chain(AT_ONCE) {
            let mut source = misbehaving(&[&roles()[..], &[("call", function)]].concat());
            source.component = Arc::from(component);
            let bench = calling_with(NoContainers::Refusing, tight(), source).await;
            // What the doubles refuse the guest tells in its own words: it was reached.
            match bench.start(mischief()).await {
                Ok(_) => {}
                Err(said) => assert!(
                    said.contains(&format!("{function}: "))
                        && !said.contains("there is no function"),
                    "{version}: {said}"
                ),
            }
        }
    }
}
