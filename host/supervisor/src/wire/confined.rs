//! The bytes of targets, confinements and what can be enforced. Words stand for restrictions and
//! mechanisms: they are the same for ever in every place where they are told.

use taskwright_capability::{Enforceable, Inside, Namespaces};
use taskwright_model::{Confinement, Mechanism, Restriction, User};

use super::put_count;
use crate::codec::{Malformed, Put, Take};

/// Something or nothing.
fn put_option<T>(value: Option<T>, out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn take_option<'a, T>(
    take: &mut Take<'a>,
    value: impl FnOnce(&mut Take<'a>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if take.flag()? {
        value(take).map(Some)
    } else {
        Ok(None)
    }
}

pub(super) fn put_inside(inside: Option<&Inside>, out: &mut Vec<u8>) {
    put_option(inside, out, |out, inside| {
        out.put_process(inside.target);
        for flag in [
            inside.further.user,
            inside.further.cgroup,
            inside.identity,
            inside.cgroup,
        ] {
            out.put_u8(u8::from(flag));
        }
    });
}

pub(super) fn take_inside(take: &mut Take<'_>) -> Result<Option<Inside>, Malformed> {
    take_option(take, |take| {
        Ok(Inside {
            target: take.process()?,
            further: Namespaces {
                user: take.flag()?,
                cgroup: take.flag()?,
            },
            identity: take.flag()?,
            cgroup: take.flag()?,
        })
    })
}

pub(super) fn put_confinement(confinement: &Confinement, out: &mut Vec<u8>) {
    put_option(confinement.cpu_millis, out, |out, it| out.put_u32(it));
    put_option(confinement.memory_bytes, out, |out, it| out.put_u64(it));
    put_option(confinement.pids, out, |out, it| out.put_u32(it));
    put_option(confinement.open_files, out, |out, it| out.put_u64(it));
    put_option(confinement.file_size_bytes, out, |out, it| out.put_u64(it));
    put_option(confinement.user.as_ref(), out, |out, user| {
        out.put_u32(user.uid);
        out.put_u32(user.gid);
        put_count(out, user.groups.len());
        for group in &user.groups {
            out.put_u32(*group);
        }
    });
    out.put_u8(u8::from(confinement.no_new_privileges));
    put_count(out, confinement.read_only_paths.len());
    for path in &confinement.read_only_paths {
        out.put_text(path);
    }
    out.put_u8(u8::from(confinement.best_effort));
}

pub(super) fn take_confinement(take: &mut Take<'_>) -> Result<Confinement, Malformed> {
    Ok(Confinement {
        cpu_millis: take_option(take, Take::u32)?,
        memory_bytes: take_option(take, Take::u64)?,
        pids: take_option(take, Take::u32)?,
        open_files: take_option(take, Take::u64)?,
        file_size_bytes: take_option(take, Take::u64)?,
        user: take_option(take, |take| {
            Ok(User {
                uid: take.u32()?,
                gid: take.u32()?,
                groups: (0..take.count(4)?)
                    .map(|_| take.u32())
                    .collect::<Result<_, _>>()?,
            })
        })?,
        no_new_privileges: take.flag()?,
        read_only_paths: (0..take.count(4)?)
            .map(|_| take.text().map(str::to_owned))
            .collect::<Result<_, _>>()?,
        best_effort: take.flag()?,
    })
}

pub(super) fn put_enforceable(table: &Enforceable, out: &mut Vec<u8>) {
    put_count(out, table.len());
    for (restriction, answer) in table {
        out.put_text(restriction.as_str());
        out.put_u8(u8::from(answer.is_ok()));
        out.put_text(match answer {
            Ok(mechanism) => mechanism.as_str(),
            Err(why) => why,
        });
    }
}

pub(super) fn take_enforceable(take: &mut Take<'_>) -> Result<Enforceable, Malformed> {
    let mut table = Enforceable::new();
    for _ in 0..take.count(9)? {
        let (word, can, text) = (take.text()?, take.flag()?, take.text()?);
        let answer = if can {
            Mechanism::parse(text).ok_or_else(|| format!("by {text}, which is newer than this"))
        } else {
            Err(text.to_owned())
        };
        // A restriction of tomorrow is asked for by nobody here.
        if let Some(restriction) = Restriction::parse(word) {
            table.push((restriction, answer));
        }
    }
    Ok(table)
}
