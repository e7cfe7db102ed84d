//! Every way in which a component can miss this host's contract, made one by one: each function
//! and each type of each interface, on the side of the component on which it is met.
//!
//! | change | refused with |
//! |---|---|
//! | a function renamed, or one that came later | interface, function, version of this host |
//! | an exported function renamed or left out | interface and function |
//! | a function that is exported beyond what is called | nothing: it is not called |
//! | one more parameter, another type of it, another result | interface, function, both types |
//! | a function made async | interface and function |
//! | a field, case or word renamed, added, left out, in another order, of another type | interface, function, place, both names or types |
//! | another version | interface, both versions; later ones of the same track are taken |
//! | an interface that nobody has | interface |
//!
//! Each refusal says what to do next.

use taskwright_capability::{Capability, Grants};
use taskwright_engine::{Inspection, inspect};
use wit_parser::{Field, FunctionKind, InterfaceId, Param, Resolve, Type, TypeDefKind};

use crate::wit::{built, replaced_in, resolved};

/// The world that has everything.
const EVERYTHING: &str = "any-plugin";
const ROLES: [&str; 3] = ["runtime", "policy", "observer"];
const IMPORTS: [&str; 10] = [
    "units",
    "status",
    "process",
    "namespace",
    "container",
    "files",
    "directories",
    "secrets",
    "settings",
    "log",
];

async fn looked_at(component: Vec<u8>) -> Inspection {
    let grants = Grants::of(&Capability::ALL);
    inspect(component.into(), "odd", &grants).await.unwrap()
}

/// What is said of a component that is refused, each refusal with its next step.
async fn refused(component: Vec<u8>) -> Vec<String> {
    let found = looked_at(component).await;
    let told = found.refusals.iter().map(|refusal| {
        let hint = refusal.hint();
        let hint = hint.unwrap_or_else(|| panic!("{refusal}: and what now?"));
        format!("{refusal} / {hint}")
    });
    told.collect()
}

/// One refusal says all of these.
#[track_caller]
fn check(refusals: &[String], expected: &[&str]) {
    let says_all = |said: &String| expected.iter().all(|text| said.contains(text));
    assert!(
        refusals.iter().any(says_all),
        "none says {expected:?}: {refusals:#?}"
    );
}

fn untouched() -> Resolve {
    resolved(|_, text| text)
}

fn interface(resolve: &Resolve, name: &str) -> InterfaceId {
    let found = |(_, interface): &(InterfaceId, &wit_parser::Interface)| {
        interface.name.as_deref() == Some(name)
    };
    resolve.interfaces.iter().find(found).unwrap().0
}

/// The functions of an interface.
fn functions(name: &str) -> Vec<String> {
    let resolve = untouched();
    let interface = &resolve.interfaces[interface(&resolve, name)];
    interface.functions.keys().cloned().collect()
}

/// A component with one function changed.
fn with_function(
    (name, function): (&str, &str),
    change: impl FnOnce(&mut wit_parser::Function),
) -> Vec<u8> {
    let mut resolve = untouched();
    let id = interface(&resolve, name);
    let functions = &mut resolve.interfaces.get_mut(id).unwrap().functions;
    let at = functions.get_index_of(function).unwrap();
    let (_, mut changed) = functions.shift_remove_entry(function).unwrap();
    change(&mut changed);
    functions.shift_insert(at, changed.name.clone(), changed);
    built(&resolve, EVERYTHING)
}

fn all() -> impl Iterator<Item = (&'static str, String)> {
    ROLES.into_iter().chain(IMPORTS).flat_map(|name| {
        let functions = functions(name).into_iter();
        functions.map(move |function| (name, function))
    })
}

#[tokio::test]
async fn what_fits_is_not_refused() {
    let found = looked_at(built(&untouched(), EVERYTHING)).await;
    assert_eq!(found.refusals, []);
    assert_eq!(found.profile.roles.len(), ROLES.len());
    for (name, function) in all() {
        assert!(!function.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_function_of_another_name_is_named_with_its_interface() {
    for (name, function) in all() {
        let renamed = with_function((name, &function), |changed| {
            changed.name = format!("{function}-anew");
        });
        let refusals = refused(renamed).await;
        let place = format!("taskwright:plugin/{name}@0.1.0");
        if ROLES.contains(&name) {
            let lacks = format!("`{place}` lacks the function `{function}`");
            check(
                &refusals,
                &[&lacks, "build it against the WIT of this host"],
            );
        } else {
            let calls = format!(
                "it calls `{place}#{function}-anew`, which this host (version 0.1.0) does not have yet"
            );
            check(
                &refusals,
                &[&calls, "update this host, or build against its WIT"],
            );
        }
    }
}

#[tokio::test]
async fn a_function_that_is_left_out_is_missed_where_it_is_called_and_nowhere_else() {
    for (name, function) in all() {
        let mut resolve = untouched();
        let id = interface(&resolve, name);
        let interface = resolve.interfaces.get_mut(id).unwrap();
        interface.functions.shift_remove(&function).unwrap();
        let without = built(&resolve, EVERYTHING);
        if ROLES.contains(&name) {
            let lacks = format!("`taskwright:plugin/{name}@0.1.0` lacks the function `{function}`");
            check(&refused(without).await, &[&lacks, "build it against"]);
        } else {
            assert_eq!(refused(without).await, [""; 0], "{name}.{function}");
        }
    }
}

#[tokio::test]
async fn a_function_that_nobody_calls_is_no_reason() {
    for name in ROLES {
        let mut resolve = untouched();
        let id = interface(&resolve, name);
        let functions = &mut resolve.interfaces.get_mut(id).unwrap().functions;
        let mut further = functions.first().unwrap().1.clone();
        further.name = "further".to_owned();
        functions.insert(further.name.clone(), further);
        assert_eq!(
            refused(built(&resolve, EVERYTHING)).await,
            [""; 0],
            "{name}"
        );
    }
}

#[tokio::test]
async fn another_count_of_parameters_is_told_with_both_counts() {
    for (name, function) in all() {
        let mut count = 0;
        let longer = with_function((name, &function), |changed| {
            count = changed.params.len();
            changed.params.push(Param {
                name: "further".to_owned(),
                ty: Type::U32,
                span: changed.span,
            });
        });
        let place = format!("`taskwright:plugin/{name}@0.1.0#{function}` does not fit");
        let counts = format!("{count} parameters here, {} in the plugin", count + 1);
        check(
            &refused(longer).await,
            &[&place, &counts, "build it against the WIT of this host"],
        );
    }
}

#[tokio::test]
async fn another_type_of_a_parameter_is_told_with_both() {
    let mut tried = 0;
    for (name, function) in all() {
        let mut parameter = None;
        let other = with_function((name, &function), |changed| {
            if let Some(first) = changed.params.first_mut() {
                parameter = Some(first.name.clone());
                // None of ours is one.
                first.ty = Type::Char;
            }
        });
        let Some(parameter) = parameter else {
            continue;
        };
        tried += 1;
        let place = format!("`taskwright:plugin/{name}@0.1.0#{function}` does not fit");
        let types = format!("parameter `{parameter}` is ");
        check(
            &refused(other).await,
            &[
                &place,
                &types,
                " here, char in the plugin",
                "build it against",
            ],
        );
    }
    assert!(tried > 20, "{tried}");
}

#[tokio::test]
async fn another_result_is_told_with_both() {
    for (name, function) in all() {
        let mut had = false;
        let other = with_function((name, &function), |changed| {
            had = changed.result.is_some();
            changed.result = Some(Type::Char);
        });
        let place = format!("`taskwright:plugin/{name}@0.1.0#{function}` does not fit");
        let types = match had {
            true => " here, char in the plugin",
            false => "the result is nothing here, char in the plugin",
        };
        let expected = [&place, "the result is ", types, "build it against"];
        check(&refused(other).await, &expected);
        if had {
            let none = with_function((name, &function), |changed| changed.result = None);
            let expected = [&place, "the result is ", " here, nothing in the plugin"];
            check(&refused(none).await, &expected);
        }
    }
}

#[tokio::test]
async fn an_async_function_is_named_with_its_interface() {
    for (name, function) in all() {
        let asynchronous = with_function((name, &function), |changed| {
            changed.kind = FunctionKind::AsyncFreestanding;
        });
        let place = format!(
            "`taskwright:plugin/{name}@0.1.0#{function}` is an async func, but this host has a plain func"
        );
        check(
            &refused(asynchronous).await,
            &[&place, "build it against the WIT of this host"],
        );
    }
}

/// A component with one of our types changed, if the change can be made, and what is then told.
fn with_type(
    number: usize,
    change: impl FnOnce(&mut TypeDefKind) -> Option<String>,
) -> Option<(Vec<u8>, String)> {
    let mut resolve = untouched();
    let (_, found) = resolve.types.iter_mut().nth(number)?;
    let expected = change(&mut found.kind)?;
    Some((built(&resolve, EVERYTHING), expected))
}

/// Changes every type by `change`, which says what is to be told of it, and says how many could
/// be changed so.
async fn change_types(change: impl Fn(&mut TypeDefKind) -> Option<String>) -> usize {
    let resolve = untouched();
    let mut changed = 0;
    for (number, (_, found)) in resolve.types.iter().enumerate() {
        // Types that nobody names are parts of those that have names.
        let Some(name) = &found.name else {
            continue;
        };
        let Some((component, expected)) = with_type(number, &change) else {
            continue;
        };
        let refusals = refused(component).await;
        assert!(
            !refusals.is_empty(),
            "{name} was changed and nobody noticed"
        );
        let expected = [
            "`taskwright:plugin/",
            "@0.1.0#",
            &expected,
            "build it against the WIT of this host",
        ];
        check(&refusals, &expected);
        changed += 1;
    }
    changed
}

#[tokio::test]
async fn a_field_of_another_name_is_told_with_both_names() {
    let changed = change_types(|kind| match kind {
        TypeDefKind::Record(record) => {
            let first = record.fields.first_mut()?;
            let here = std::mem::replace(&mut first.name, "odd".to_owned());
            Some(format!(
                "has the fields `{here}` here and `odd` in the plugin"
            ))
        }
        TypeDefKind::Variant(variant) => {
            let last = variant.cases.last_mut()?;
            let here = std::mem::replace(&mut last.name, "odd".to_owned());
            Some(format!(
                "has the cases `{here}` here and `odd` in the plugin"
            ))
        }
        TypeDefKind::Enum(words) => {
            let last = words.cases.last_mut()?;
            let here = std::mem::replace(&mut last.name, "odd".to_owned());
            Some(format!(
                "has the cases `{here}` here and `odd` in the plugin"
            ))
        }
        _ => None,
    })
    .await;
    assert!(changed > 30, "{changed}");
}

#[tokio::test]
async fn a_field_more_is_named() {
    let changed = change_types(|kind| match kind {
        TypeDefKind::Record(record) => {
            let mut further: Field = record.fields.first()?.clone();
            further.name = "odd".to_owned();
            record.fields.push(further);
            Some("has the fields `odd` in the plugin only".to_owned())
        }
        TypeDefKind::Variant(variant) => {
            let mut further = variant.cases.first()?.clone();
            further.name = "odd".to_owned();
            variant.cases.push(further);
            Some("has the cases `odd` in the plugin only".to_owned())
        }
        TypeDefKind::Enum(words) => {
            let mut further = words.cases.first()?.clone();
            further.name = "odd".to_owned();
            words.cases.push(further);
            Some("has the cases `odd` in the plugin only".to_owned())
        }
        _ => None,
    })
    .await;
    assert!(changed > 30, "{changed}");
}

#[tokio::test]
async fn a_field_less_is_named() {
    let changed = change_types(|kind| match kind {
        TypeDefKind::Record(record) if record.fields.len() > 1 => {
            let gone = record.fields.pop()?.name;
            Some(format!("has the fields `{gone}` here only"))
        }
        TypeDefKind::Variant(variant) if variant.cases.len() > 1 => {
            let gone = variant.cases.pop()?.name;
            Some(format!("has the cases `{gone}` here only"))
        }
        TypeDefKind::Enum(words) if words.cases.len() > 1 => {
            let gone = words.cases.pop()?.name;
            Some(format!("has the cases `{gone}` here only"))
        }
        _ => None,
    })
    .await;
    assert!(changed > 30, "{changed}");
}

#[tokio::test]
async fn another_order_is_named_as_such() {
    let changed = change_types(|kind| match kind {
        TypeDefKind::Record(record) if record.fields.len() > 1 => {
            record.fields.swap(0, 1);
            Some("has its fields in another order".to_owned())
        }
        TypeDefKind::Variant(variant) if variant.cases.len() > 1 => {
            variant.cases.swap(0, 1);
            Some("has its cases in another order".to_owned())
        }
        TypeDefKind::Enum(words) if words.cases.len() > 1 => {
            words.cases.swap(0, 1);
            Some("has its cases in another order".to_owned())
        }
        _ => None,
    })
    .await;
    assert!(changed > 30, "{changed}");
}

#[tokio::test]
async fn a_field_of_another_type_is_told_with_both() {
    let changed = change_types(|kind| match kind {
        TypeDefKind::Record(record) => {
            let last = record.fields.last_mut()?;
            last.ty = Type::Char;
            Some(format!("field `{}` is ", last.name))
        }
        TypeDefKind::Variant(variant) => {
            let last = variant.cases.last_mut()?;
            last.ty = Some(Type::Char);
            Some(format!("case `{}` is ", last.name))
        }
        _ => None,
    })
    .await;
    assert!(changed > 20, "{changed}");
}

#[tokio::test]
async fn versions_of_the_same_track_fit_and_others_are_told_with_both() {
    let other = |version: &str| replaced_in(EVERYTHING, "", "0.1.0", version);
    for version in ["0.1.1", "0.1.99"] {
        assert_eq!(refused(other(version)).await, [""; 0], "{version}");
    }
    for version in ["0.0.1", "0.2.0", "1.0.0", "0.1.0-rc.1"] {
        let refusals = refused(other(version)).await;
        for (side, names) in [("exports", &ROLES[..]), ("imports", &IMPORTS[..])] {
            for name in names {
                let both = format!(
                    "it {side} `taskwright:plugin/{name}@{version}`, but this host speaks `taskwright:plugin/{name}@0.1.0`"
                );
                check(&refusals, &[&both, "build it against the WIT of this host"]);
            }
        }
    }
}

#[tokio::test]
async fn a_package_without_a_version_is_told_so() {
    let mut resolve = resolved(|_, text| {
        let text = text.replace("taskwright:plugin@0.1.0", "taskwright:plugin");
        text.replace("@since(version = 0.1.0)", "")
    });
    let none = built(&resolve, EVERYTHING);
    check(
        &refused(none).await,
        &[
            "it exports `taskwright:plugin/policy` without a version",
            "this host speaks `taskwright:plugin/policy@0.1.0`",
            "build it against",
        ],
    );
    resolve = resolved(|_, text| text.replace("taskwright:plugin@0.1.0", "elsewhere:plugin@0.1.0"));
    let refusals = refused(built(&resolve, EVERYTHING)).await;
    check(
        &refusals,
        &[
            "it imports `elsewhere:plugin/files@0.1.0`, which this host does not have",
            "build it without",
        ],
    );
    check(
        &refusals,
        &[
            "`elsewhere:plugin/observer@0.1.0`, none of which this host calls",
            "plugin new",
        ],
    );
}

#[tokio::test]
async fn an_interface_that_came_later_is_named_with_the_next_step() {
    let later = resolved(|name, text| match name {
        "world.wit" => text.replace(
            "  import log;",
            "  import log;\n  @since(version = 0.1.0)\n  import gpu;",
        ),
        "log.wit" => format!(
            "{text}\n@since(version = 0.1.0)\ninterface gpu {{\n  @since(version = 0.1.0)\n  count: func() -> u32;\n}}\n"
        ),
        _ => text,
    });
    for world in [
        "runtime-plugin",
        "policy-plugin",
        "observer-plugin",
        EVERYTHING,
    ] {
        check(
            &refused(built(&later, world)).await,
            &[
                "it imports `taskwright:plugin/gpu@0.1.0`, which this host does not have",
                "update this host",
            ],
        );
    }
}
