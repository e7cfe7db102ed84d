//! Whether two functions have the same type, and if not, where they part.
//!
//! The component model has no subtyping: one more field or case makes another
//! type, so the first difference is also the reason.

use wit_parser::{Function, Handle, Resolve, Type, TypeDefKind};

/// Types within types that are followed; WIT has no recursive ones.
const MOST_DEPTH: usize = 32;

/// The first difference between a function of ours and one of a plugin's, in words.
pub(super) fn difference(
    (our_resolve, ours): (&Resolve, &Function),
    (their_resolve, theirs): (&Resolve, &Function),
) -> Option<String> {
    let comparison = Comparison {
        ours: our_resolve,
        theirs: their_resolve,
    };
    if ours.params.len() != theirs.params.len() {
        return Some(format!(
            "{} parameters here, {} in the plugin",
            ours.params.len(),
            theirs.params.len()
        ));
    }
    for (one, other) in ours.params.iter().zip(&theirs.params) {
        let place = format!("parameter `{}`", one.name);
        if let Some(found) = comparison.types(&one.ty, &other.ty, &place, 0) {
            return Some(found);
        }
    }
    comparison.maybe(
        ours.result.as_ref(),
        theirs.result.as_ref(),
        "the result",
        0,
    )
}

struct Comparison<'a> {
    ours: &'a Resolve,
    theirs: &'a Resolve,
}

impl Comparison<'_> {
    fn maybe(
        &self,
        ours: Option<&Type>,
        theirs: Option<&Type>,
        place: &str,
        depth: usize,
    ) -> Option<String> {
        match (ours, theirs) {
            (None, None) => None,
            (Some(one), Some(other)) => self.types(one, other, place, depth),
            (Some(one), None) => Some(format!(
                "{place} is {} here, nothing in the plugin",
                told(self.ours, one, 0)
            )),
            (None, Some(other)) => Some(format!(
                "{place} is nothing here, {} in the plugin",
                told(self.theirs, other, 0)
            )),
        }
    }

    fn types(&self, ours: &Type, theirs: &Type, place: &str, depth: usize) -> Option<String> {
        if depth > MOST_DEPTH {
            return Some(format!("{place} nests too deeply"));
        }
        let found = match (kind(self.ours, ours), kind(self.theirs, theirs)) {
            (Kind::Plain(one), Kind::Plain(other)) if one == other => return None,
            (Kind::Defined(one), Kind::Defined(other)) => {
                self.definitions(one, other, place, depth + 1)
            }
            (Kind::Plain(_), _) | (_, Kind::Plain(_)) => Err(Unlike),
        };
        found.unwrap_or_else(|Unlike| {
            Some(format!(
                "{place} is {} here, {} in the plugin",
                told(self.ours, ours, 0),
                told(self.theirs, theirs, 0)
            ))
        })
    }

    fn definitions(
        &self,
        ours: &TypeDefKind,
        theirs: &TypeDefKind,
        place: &str,
        depth: usize,
    ) -> Result<Option<String>, Unlike> {
        use TypeDefKind as K;
        Ok(match (ours, theirs) {
            (K::Record(one), K::Record(other)) => {
                let fields = |record: &wit_parser::Record| {
                    record
                        .fields
                        .iter()
                        .map(|field| field.name.clone())
                        .collect()
                };
                names(place, "fields", fields(one), fields(other)).or_else(|| {
                    one.fields
                        .iter()
                        .zip(&other.fields)
                        .find_map(|(one, other)| {
                            let place = format!("{place}, field `{}`", one.name);
                            self.types(&one.ty, &other.ty, &place, depth)
                        })
                })
            }
            (K::Variant(one), K::Variant(other)) => {
                let cases = |variant: &wit_parser::Variant| {
                    variant.cases.iter().map(|case| case.name.clone()).collect()
                };
                names(place, "cases", cases(one), cases(other)).or_else(|| {
                    one.cases.iter().zip(&other.cases).find_map(|(one, other)| {
                        let place = format!("{place}, case `{}`", one.name);
                        self.maybe(one.ty.as_ref(), other.ty.as_ref(), &place, depth)
                    })
                })
            }
            (K::Enum(one), K::Enum(other)) => names(
                place,
                "cases",
                one.cases.iter().map(|case| case.name.clone()).collect(),
                other.cases.iter().map(|case| case.name.clone()).collect(),
            ),
            (K::Flags(one), K::Flags(other)) => names(
                place,
                "flags",
                one.flags.iter().map(|flag| flag.name.clone()).collect(),
                other.flags.iter().map(|flag| flag.name.clone()).collect(),
            ),
            (K::Tuple(one), K::Tuple(other)) if one.types.len() == other.types.len() => one
                .types
                .iter()
                .zip(&other.types)
                .find_map(|(one, other)| self.types(one, other, place, depth)),
            (K::Option(one), K::Option(other)) | (K::List(one), K::List(other)) => {
                self.types(one, other, place, depth)
            }
            (K::Result(one), K::Result(other)) => self
                .maybe(one.ok.as_ref(), other.ok.as_ref(), place, depth)
                .or_else(|| {
                    let place = format!("{place}, the error");
                    self.maybe(one.err.as_ref(), other.err.as_ref(), &place, depth)
                }),
            (K::Handle(Handle::Own(_)), K::Handle(Handle::Own(_)))
            | (K::Handle(Handle::Borrow(_)), K::Handle(Handle::Borrow(_)))
            | (K::Resource, K::Resource) => None,
            _ => return Err(Unlike),
        })
    }
}

/// Two types that have nothing in common whose parts could be compared.
struct Unlike;

/// A type in the words of WIT, in so many words as a message may have.
fn told(resolve: &Resolve, given: &Type, depth: usize) -> String {
    const MOST_WITHIN: usize = 4;
    const MOST_MEMBERS: usize = 8;
    if depth > MOST_WITHIN {
        return "...".to_owned();
    }
    let within = |given: &Type| told(resolve, given, depth + 1);
    let maybe = |given: &Option<Type>| given.as_ref().map_or_else(|| "_".to_owned(), within);
    let found = match kind(resolve, given) {
        Kind::Plain(plain) => return word(&plain).to_owned(),
        Kind::Defined(found) => found,
    };
    match found {
        TypeDefKind::Option(one) => format!("option<{}>", within(one)),
        TypeDefKind::List(one) => format!("list<{}>", within(one)),
        TypeDefKind::Result(both) => format!("result<{}, {}>", maybe(&both.ok), maybe(&both.err)),
        TypeDefKind::Tuple(tuple) => {
            let members = tuple.types.iter().take(MOST_MEMBERS).map(within);
            let members: Vec<String> = members.collect();
            format!("tuple<{}>", members.join(", "))
        }
        other => match name(resolve, given) {
            Some(name) => format!("the {} `{name}`", other.as_str()),
            None => format!("a nameless {}", other.as_str()),
        },
    }
}

/// The name under which a type is used.
fn name<'a>(resolve: &'a Resolve, given: &Type) -> Option<&'a str> {
    match given {
        Type::Id(id) => resolve.types.get(*id)?.name.as_deref(),
        _ => None,
    }
}

/// A type with its aliases followed.
enum Kind<'a> {
    Plain(Type),
    Defined(&'a TypeDefKind),
}

fn kind<'a>(resolve: &'a Resolve, given: &Type) -> Kind<'a> {
    let mut given = *given;
    // As many aliases as there are types: a cycle would be a bug of the parser, and ends too.
    for _ in 0..=resolve.types.len() {
        let Type::Id(id) = given else {
            return Kind::Plain(given);
        };
        match resolve.types.get(id).map(|found| &found.kind) {
            Some(TypeDefKind::Type(alias)) => given = *alias,
            Some(kind) => return Kind::Defined(kind),
            None => return Kind::Plain(given),
        }
    }
    Kind::Plain(given)
}

/// Names in order; order is part of the type.
fn names(place: &str, what: &str, ours: Vec<String>, theirs: Vec<String>) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let only = |these: &[String], those: &[String]| {
        let only: Vec<&str> = these
            .iter()
            .filter(|name| !those.contains(name))
            .map(String::as_str)
            .collect();
        only.join("`, `")
    };
    let (here, there) = (only(&ours, &theirs), only(&theirs, &ours));
    Some(match (here.is_empty(), there.is_empty()) {
        (true, true) => format!("{place} has its {what} in another order"),
        (false, true) => format!("{place} has the {what} `{here}` here only"),
        (true, false) => format!("{place} has the {what} `{there}` in the plugin only"),
        (false, false) => {
            format!("{place} has the {what} `{here}` here and `{there}` in the plugin")
        }
    })
}

fn word(given: &Type) -> &'static str {
    match given {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => "a type of its own",
    }
}
