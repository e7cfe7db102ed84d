//! What a task of either kind asks for, in one plain form.
//!
//! Everything that is wrong with a document is told at once, each problem at its place. A field
//! that would change what runs or how it ends and that is not carried out here is refused by
//! name; what it refuses is listed in [`refused`]. Nothing is asked of the host in here.

mod capability;
mod container;
mod env;
mod expand;
mod image;
mod json;
mod pod;
mod quantity;
mod refused;
mod single;
mod volume;

use serde_json::Value;
use taskwright_plugin_sdk::container::{ContainerRequest, PullPolicy, SandboxRequest};
use taskwright_plugin_sdk::{Problem, Task};

use self::env::Variable;
use self::json::{Node, Problems};

/// A container by itself: the guide's `spec.container`.
pub(crate) const CONTAINER: &str = "container";
/// A core/v1 `PodTemplateSpec`.
pub(crate) const POD: &str = "podTemplateSpec";
/// The one unit of a container by itself.
pub(crate) const MAIN: &str = "main";
/// What the host lets one attempt have.
const MOST_CONTAINERS: usize = 16;

/// What the references in a container's words may come to, in bytes.
const MOST_EXPANDED: usize = 4 * 1024 * 1024;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Whether people want to see its containers one by one.
    pub(crate) is_pod: bool,
    pub(crate) sandbox: SandboxRequest,
    /// Every image that is needed, each once.
    pub(crate) images: Vec<Image>,
    /// The containers of initialization first, in their order, then the others.
    pub(crate) containers: Vec<Container>,
    /// How many of `containers` are of initialization.
    pub(crate) init: usize,
}

/// An image that is needed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) policy: PullPolicy,
}

/// A container, complete but for what is known only once its sandbox runs.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its name, and the word for its unit.
    pub(crate) name: String,
    /// Without variables and references to them.
    request: ContainerRequest,
    env: Vec<Variable>,
    /// Whether `$(NAME)` stands for a variable.
    expands: bool,
    policy: PullPolicy,
}

impl Container {
    pub(crate) fn image(&self) -> &str {
        &self.request.image
    }

    /// What to create in a sandbox of this address.
    ///
    /// # Errors
    /// A sentence, where a variable wants an address and there is none.
    pub(crate) fn request(&self, address: Option<&str>) -> Result<ContainerRequest, String> {
        let env = env::resolve(&self.env, address, self.expands)?;
        if !self.expands {
            return Ok(ContainerRequest {
                env,
                ..self.request.clone()
            });
        }
        let all = self.request.command.iter().chain(&self.request.args);
        let references: usize = all.map(|word| word.matches("$(").count()).sum();
        let longest = env.iter().map(|one| one.value.len()).max().unwrap_or(0);
        if references.saturating_mul(longest) > MOST_EXPANDED {
            return Err(format!(
                "with what $(NAME) stands for, command and args may have more than \
                 {MOST_EXPANDED} bytes"
            ));
        }
        let words = |words: &[String]| {
            let expanded = words.iter().map(|word| env::expand_in(&env, word));
            expanded.collect::<Vec<_>>()
        };
        Ok(ContainerRequest {
            command: words(&self.request.command),
            args: words(&self.request.args),
            env,
            ..self.request.clone()
        })
    }
}

/// Reads what a task asks for.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn parse(task: &Task) -> Result<Plan, Vec<Problem>> {
    let problems = Problems::default();
    if !task.config.is_empty() {
        problems.add(
            "/config",
            "means nothing to this runtime: leave it out, or name another runtime",
        );
    }
    let plan = read(task, &problems);
    let found = problems.into_vec();
    match plan {
        Some(plan) if found.is_empty() => Ok(plan),
        _ => Err(found),
    }
}

/// `None` always comes with a problem.
fn read(task: &Task, problems: &Problems) -> Option<Plan> {
    let place = format!("/{}", task.kind);
    let document: Value = match serde_json::from_str(&task.document) {
        Ok(document) => document,
        Err(error) => {
            problems.add(&place, format!("is no JSON: {error}"));
            return None;
        }
    };
    let root = Node {
        value: &document,
        place,
        problems,
    };
    match task.kind.as_str() {
        CONTAINER => single::read(task, &root.object()?),
        POD => pod::read(task, &root.object()?),
        other => {
            root.problem(format!(
                "is work of kind {other:?}; this runtime takes {CONTAINER} and {POD}"
            ));
            None
        }
    }
}

/// Each image once. Who wants it fresh is served together with who does not.
fn images(containers: &[Container]) -> Vec<Image> {
    let eagerness = |policy| match policy {
        PullPolicy::Never => 0,
        PullPolicy::IfNotPresent => 1,
        PullPolicy::Always => 2,
    };
    let mut images: Vec<Image> = Vec::new();
    for container in containers {
        let (name, policy) = (container.image(), container.policy);
        match images.iter_mut().find(|image| image.name == name) {
            Some(image) if eagerness(image.policy) >= eagerness(policy) => {}
            Some(image) => image.policy = policy,
            None => images.push(Image {
                name: name.to_owned(),
                policy,
            }),
        }
    }
    images
}

/// Whether a text is a DNS label, as names of containers and volumes are.
fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What a name that is no DNS label should be.
const LABEL: &str = "must be a DNS label: at most 63 of a-z, 0-9 and -, neither first nor last -";

#[cfg(test)]
mod tests;
