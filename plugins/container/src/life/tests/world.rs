//! A host that is played: images, one sandbox, containers, and whatever is to go wrong.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use taskwright_plugin_sdk::container::{
    ContainerRequest, ContainerState, Error, ImageState, PullProgress,
};
use taskwright_plugin_sdk::status::Part;
use taskwright_plugin_sdk::{
    End, Event, ExitStatus, Failure, Outcome, Step, StopRequest, Task, UnitExit, units,
};

use crate::life::{Answer, Ask, Life, Next};
use crate::spec::{self, Plan};

pub(super) const PATIENCE_MS: u64 = 30_000;

pub(super) fn code(code: u8) -> End {
    End {
        status: ExitStatus::Code(code),
        out_of_memory: false,
    }
}

pub(super) fn signal(number: u32) -> End {
    End {
        status: ExitStatus::Signal(number),
        out_of_memory: false,
    }
}

pub(super) fn out_of_memory() -> End {
    End {
        status: ExitStatus::Signal(9),
        out_of_memory: true,
    }
}

pub(super) fn unknown() -> End {
    End {
        status: ExitStatus::Unknown,
        out_of_memory: false,
    }
}

fn plan(kind: &str, document: &Value) -> Plan {
    let task = Task {
        id: "id".to_owned(),
        namespace: "default".to_owned(),
        name: "task".to_owned(),
        attempt: 1,
        kind: kind.to_owned(),
        process: None,
        document: document.to_string(),
        labels: Vec::new(),
        config: String::new(),
        extra: Vec::new(),
    };
    spec::parse(&task).unwrap()
}

/// A container by itself.
pub(super) fn single() -> Plan {
    plan(spec::CONTAINER, &json!({"image": "busybox"}))
}

/// A pod with a container of initialization and two others.
pub(super) fn three() -> Plan {
    let document = json!({"spec": {
        "initContainers": [{"name": "setup", "image": "busybox"}],
        "containers": [{"name": "main", "image": "python"}, {"name": "helper", "image": "busybox"}],
    }});
    plan(spec::POD, &document)
}

/// A pod as large as they get.
pub(super) fn sixteen() -> Plan {
    let name = |n: usize| format!("{n:0>63}");
    let containers: Vec<_> = (0..16)
        .map(|n| json!({"name": name(n), "image": "busybox"}))
        .collect();
    plan(spec::POD, &json!({"spec": {"containers": containers}}))
}

/// A pod that wants its address.
pub(super) fn addressed() -> Plan {
    let env = json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let document =
        json!({"spec": {"containers": [{"name": "main", "image": "busybox", "env": env}]}});
    plan(spec::POD, &document)
}

/// Something that goes wrong when the n-th question comes.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// It is answered so.
    Answer(Error),
    /// The host dies before it is asked.
    CrashBefore,
    /// The host dies once it is done.
    CrashAfter,
}

pub(super) struct World {
    pub(super) now: u64,
    /// What pulls answer before the image is there.
    pub(super) pulls: Vec<u64>,
    pub(super) address: Option<&'static str>,
    pub(super) fault: Option<(usize, Fault)>,
    /// While it is true, the runtime is away.
    pub(super) is_away: bool,
    /// While it is true, starts are cut off.
    pub(super) is_cut_off: bool,
    pub(super) asked: Vec<String>,
    containers: BTreeMap<String, ContainerState>,
    requests: BTreeMap<String, ContainerRequest>,
    at_once: BTreeMap<String, End>,
    /// How often each was really started.
    pub(super) starts: BTreeMap<String, usize>,
}

impl World {
    fn new() -> Self {
        Self {
            now: 1_000,
            pulls: Vec::new(),
            address: Some("10.0.0.7"),
            fault: None,
            is_away: false,
            is_cut_off: false,
            asked: Vec::new(),
            containers: BTreeMap::new(),
            requests: BTreeMap::new(),
            at_once: BTreeMap::new(),
            starts: BTreeMap::new(),
        }
    }

    pub(super) fn ends_at_once(&mut self, name: &str, end: End) {
        self.at_once.insert(name.to_owned(), end);
    }

    pub(super) fn put(&mut self, name: &str, state: ContainerState) {
        self.containers.insert(name.to_owned(), state);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.containers.remove(name);
    }

    pub(super) fn running(&self) -> Vec<String> {
        let all = self.containers.iter();
        let running = all.filter(|(_, state)| matches!(state, ContainerState::Running(_)));
        running.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn end_of(&self, name: &str) -> Option<End> {
        match self.containers.get(name) {
            Some(ContainerState::Ended(end)) => Some(*end),
            _ => None,
        }
    }

    pub(super) fn env_of(&self, name: &str) -> Vec<(&str, &str)> {
        let env = self.requests[name].env.iter();
        env.map(|it| (it.name.as_str(), it.value.as_str()))
            .collect()
    }

    fn ask(&mut self, ask: &Ask) -> Answer {
        let word = match ask {
            Ask::Image(image) => format!("image {}", image.name),
            Ask::Sandbox(_) => "sandbox".to_owned(),
            Ask::Create(unit, _) => format!("create {}", unit.name),
            Ask::Start(unit) => format!("start {}", unit.name),
            Ask::Inspect(unit) => format!("inspect {}", unit.name),
            Ask::Stop(unit, grace) => format!("stop {} {grace}", unit.name),
        };
        self.asked.push(word);
        let away = Error::Unavailable("no socket".to_owned());
        if self.is_away {
            return refusal(ask, away);
        }
        if let Some((0, Fault::Answer(error))) = &self.fault {
            return refusal(ask, error.clone());
        }
        match ask {
            Ask::Image(image) if self.pulls.is_empty() => {
                Answer::Image(Ok(ImageState::Present(image.name.clone())))
            }
            Ask::Image(_) => Answer::Image(Ok(ImageState::Pulling(PullProgress {
                seconds: self.pulls.remove(0),
                waiters: 2,
            }))),
            Ask::Sandbox(_) => Answer::Sandbox(Ok(self.address.map(str::to_owned))),
            Ask::Create(unit, request) => {
                let found = self.containers.entry(unit.name.clone());
                found.or_insert(ContainerState::Created);
                self.requests.insert(unit.name.clone(), (**request).clone());
                Answer::Create(Ok(()))
            }
            Ask::Start(unit) => {
                let Some(state) = self.containers.get_mut(&unit.name) else {
                    return Answer::Start(Err(Error::NotRunning(unit.name.clone())));
                };
                if self.is_cut_off {
                    return Answer::Start(Err(Error::NeverBegun("cut off".to_owned())));
                }
                if *state == ContainerState::Created {
                    *self.starts.entry(unit.name.clone()).or_default() += 1;
                    *state = match self.at_once.get(&unit.name) {
                        Some(end) => ContainerState::Ended(*end),
                        None => ContainerState::Running(self.now),
                    };
                }
                Answer::Start(Ok(*state))
            }
            Ask::Inspect(unit) => Answer::Inspect(Ok(self.containers.get(&unit.name).copied())),
            // Of what is not there, too.
            Ask::Stop(..) => Answer::Stop(Ok(())),
        }
    }
}

fn refusal(ask: &Ask, error: Error) -> Answer {
    match ask {
        Ask::Image(_) => Answer::Image(Err(error)),
        Ask::Sandbox(_) => Answer::Sandbox(Err(error)),
        Ask::Create(..) => Answer::Create(Err(error)),
        Ask::Start(_) => Answer::Start(Err(error)),
        Ask::Inspect(_) => Answer::Inspect(Err(error)),
        Ask::Stop(..) => Answer::Stop(Err(match error {
            Error::Unavailable(sentence) | Error::UnderWay(sentence) => {
                units::Error::Unavailable(sentence)
            }
            Error::NotRunning(sentence) => units::Error::NotRunning(sentence),
            Error::Denied(sentence) => units::Error::Denied(sentence),
            other => units::Error::Other(format!("{other:?}")),
        })),
    }
}

/// A plan that is played in a world, call by call.
pub(super) struct Play {
    plan: Plan,
    pub(super) world: World,
    /// What the host keeps.
    pub(super) state: Vec<u8>,
    pub(super) last: Result<Step, Failure>,
    pub(super) note: Option<String>,
    pub(super) parts: Option<Vec<Part>>,
}

impl Play {
    /// Plays the start in a world where nothing goes wrong.
    pub(super) fn of(plan: Plan) -> Self {
        let mut play = Self::unplayed(plan);
        play.start();
        play
    }

    pub(super) fn unplayed(plan: Plan) -> Self {
        Self {
            plan,
            world: World::new(),
            state: Vec::new(),
            last: Err(Failure::Other("nothing was played".to_owned())),
            note: None,
            parts: None,
        }
    }

    /// Begins anew in the world as it was set up.
    pub(super) fn restart(&mut self) {
        self.state.clear();
        self.world.asked.clear();
        self.start();
    }

    /// `false`: the host died during the call.
    pub(super) fn start(&mut self) -> bool {
        self.call(None)
    }

    pub(super) fn event(&mut self, event: Event) -> bool {
        self.call(Some(event))
    }

    fn call(&mut self, event: Option<Event>) -> bool {
        let mut life = match &event {
            None => Life::begin(&self.plan, PATIENCE_MS),
            Some(_) => match Life::resume(&self.plan, PATIENCE_MS, &self.state) {
                Ok(life) => life,
                Err(failure) => {
                    self.last = Err(failure);
                    return true;
                }
            },
        };
        if let Some(event) = &event {
            life.hear(event, self.world.now);
        }
        let answer = loop {
            let ask = match life.next() {
                Next::Ask(ask) => ask,
                Next::Answer(answer) => break answer,
            };
            let fault = self.world.fault.clone();
            if let Some((0, Fault::CrashBefore)) = fault {
                self.world.fault = None;
                return false;
            }
            let said = self.world.ask(&ask);
            match fault {
                Some((0, Fault::CrashAfter)) => {
                    self.world.fault = None;
                    return false;
                }
                Some((0, _)) => self.world.fault = None,
                Some((left, fault)) => self.world.fault = Some((left - 1, fault)),
                None => {}
            }
            life.take(&ask, said, self.world.now);
        };
        let ended_at = matches!(answer, Ok(Step::Done(_))).then_some(self.world.now);
        if let Some(parts) = life.news(ended_at) {
            self.parts = Some(parts);
        }
        self.note = life.note();
        if let Ok(Step::Wait(waiting)) = &answer {
            self.state = waiting.state.clone();
        }
        self.last = answer;
        true
    }

    pub(super) fn exits(&mut self, name: &str, end: End) {
        self.world.now += 1_000;
        self.world.put(name, ContainerState::Ended(end));
        self.hears_exit(name, end);
    }

    /// Is told of an end, whatever the runtime says of the container.
    pub(super) fn hears_exit(&mut self, name: &str, end: End) -> bool {
        let unit = name.to_owned();
        self.event(Event::Exited(UnitExit { unit, end }))
    }

    pub(super) fn wakes(&mut self) {
        let pause = match &self.last {
            Ok(Step::Wait(waiting)) => waiting.wake_after_ms.unwrap_or(0),
            _ => 0,
        };
        self.world.now += pause;
        self.event(Event::Woke);
    }

    pub(super) fn is_stopped(&mut self, grace_ms: u64) {
        self.event(Event::StopRequested(StopRequest { grace_ms }));
    }

    pub(super) fn waits_running(&self) {
        assert!(
            matches!(&self.last, Ok(Step::Wait(waiting)) if waiting.running),
            "{:?}",
            self.last
        );
    }

    pub(super) fn waits_not_running(&self) {
        assert!(
            matches!(&self.last, Ok(Step::Wait(waiting)) if !waiting.running),
            "{:?}",
            self.last
        );
    }

    pub(super) fn ends_with(&self, expected: &Outcome) {
        assert_eq!(self.last, Ok(Step::Done(expected.clone())));
    }

    /// Claims that this was asked since the last claim.
    pub(super) fn asked(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.world.asked), expected);
    }

    pub(super) fn state_text(&self) -> String {
        String::from_utf8(self.state.clone()).unwrap()
    }
}
