//! What a task may use and as whom it runs: `resources`, `user`, `noNewPrivileges`,
//! `readOnlyPaths`, `bestEffort`, at the top level or under `spec`.

use serde_json::Value;
use taskwright_model::{Confinement, User};

use super::field::{Object, Path, Problems};
use super::parse::Both;
use super::quantity;

/// The most processor time, in thousandths of a core.
const MOST_CPU_MILLIS: u128 = 1_000_000;
/// The least memory: below it no program starts.
const LEAST_MEMORY_BYTES: u64 = 1 << 20;
/// The most processes that a kernel has (`PID_MAX_LIMIT`).
const MOST_PIDS: i64 = 4_194_304;
/// The most read-only paths, and the longest of them (`PATH_MAX`, with its NUL).
const MOST_PATHS: (usize, usize) = (64, 4095);
/// The most further groups (`NGROUPS_MAX` is 65,536; nobody writes so many).
const MOST_GROUPS: usize = 64;

/// Reads what a task says of its confinement.
pub(crate) fn confinement(both: Both<'_>, problems: &mut Problems) -> Confinement {
    let mut confinement = Confinement::default();
    resources(both, &mut confinement, problems);
    confinement.user = user(both, problems);
    confinement.no_new_privileges = switch(both, "noNewPrivileges", problems);
    confinement.read_only_paths = read_only_paths(both, problems);
    confinement.best_effort = switch(both, "bestEffort", problems);
    confinement
}

fn switch(both: Both<'_>, key: &str, problems: &mut Problems) -> bool {
    let holder = both.holder(key, problems);
    holder.is_some_and(|holder| holder.switch(key, problems) == Some(true))
}

fn resources(both: Both<'_>, into: &mut Confinement, problems: &mut Problems) {
    const KEY: &str = "resources";
    let Some(holder) = both.holder(KEY, problems) else {
        return;
    };
    let path = holder.path.key(KEY);
    let Some(object) = holder
        .get(KEY)
        .and_then(|value| Object::of(value, &path, problems))
    else {
        return;
    };
    into.cpu_millis = object.get("cpu").and_then(|value| {
        let told = quantity::millis(value).and_then(|millis| match u32::try_from(millis) {
            Ok(0) => Err(format!(
                "must be above 0, and is {}",
                quantity::shown(value)
            )),
            Ok(number) if millis <= MOST_CPU_MILLIS => Ok(number),
            _ => Err(format!(
                "{} is more than a thousand cores",
                quantity::shown(value)
            )),
        });
        kept(told, &path.key("cpu"), problems)
    });
    into.memory_bytes = object.get("memory").and_then(|value| {
        let told = quantity::units(value).and_then(|bytes| match bytes {
            LEAST_MEMORY_BYTES.. => Ok(bytes),
            _ => Err(format!(
                "must be at least 1Mi, and is {}",
                quantity::shown(value)
            )),
        });
        kept(told, &path.key("memory"), problems)
    });
    into.file_size_bytes = object
        .get("fileSize")
        .and_then(|value| kept(quantity::units(value), &path.key("fileSize"), problems));
    into.pids =
        counted(object, "pids", MOST_PIDS, problems).and_then(|count| u32::try_from(count).ok());
    into.open_files = counted(object, "openFiles", i64::from(i32::MAX), problems);
    for key in object.map.keys() {
        let known = ["cpu", "memory", "pids", "openFiles", "fileSize"];
        if !known.contains(&key.as_str()) {
            // A limit that is not known would not be kept: ignoring it would be a lie.
            let message = format!(
                "is no resource that can be limited: {} are",
                known.join(", ")
            );
            problems.add(&path.key(key), message);
        }
    }
}

fn counted(object: Object<'_>, key: &str, most: i64, problems: &mut Problems) -> Option<u64> {
    let count = object.integer(key, problems)?;
    match u64::try_from(count) {
        Ok(number @ 1..) if count <= most => Some(number),
        _ => {
            let message = format!("must be between 1 and {most}");
            problems.add(&object.path.key(key), message);
            None
        }
    }
}

fn kept<T>(told: Result<T, String>, path: &Path<'_>, problems: &mut Problems) -> Option<T> {
    told.map_err(|message| problems.add(path, message)).ok()
}

/// `1000`, `"1000"`, `"1000:100"` or `{"uid": 1000, "gid": 100, "groups": [4]}`.
fn user(both: Both<'_>, problems: &mut Problems) -> Option<User> {
    const KEY: &str = "user";
    let holder = both.holder(KEY, problems)?;
    let path = holder.path.key(KEY);
    let value = holder.get(KEY)?;
    let plain = |uid: u32, gid: u32| User {
        uid,
        gid,
        groups: Vec::new(),
    };
    let found = match value {
        Value::Number(_) => id(value).map(|uid| plain(uid, uid)),
        Value::String(text) => {
            let (uid, gid) = text.split_once(':').unwrap_or((text, text));
            uid.parse()
                .ok()
                .zip(gid.parse().ok())
                .and_then(|(uid, gid)| {
                    (uid != u32::MAX && gid != u32::MAX).then(|| plain(uid, gid))
                })
        }
        Value::Object(map) => return user_object(Object { map, path: &path }, problems),
        _ => None,
    };
    if found.is_none() {
        problems.add(
            &path,
            "must be a number, \"UID\", \"UID:GID\" or an object with uid, gid and groups; names \
             are not looked up",
        );
    }
    found
}

fn user_object(object: Object<'_>, problems: &mut Problems) -> Option<User> {
    let number = |key: &str, problems: &mut Problems| {
        let value = object.get(key)?;
        let found = id(value);
        if found.is_none() {
            problems.add(&object.path.key(key), "must be a number below 2^32 - 1");
        }
        found
    };
    let uid = number("uid", problems);
    if object.get("uid").is_none() {
        problems.add(&object.path.key("uid"), "is missing");
    }
    let gid = number("gid", problems);
    let list_path = object.path.key("groups");
    let list = object.list("groups", problems).unwrap_or_default();
    if list.len() > MOST_GROUPS {
        problems.add(&list_path, format!("has more than {MOST_GROUPS} entries"));
    }
    let mut groups = Vec::new();
    for (index, value) in list.iter().enumerate().take(MOST_GROUPS) {
        match id(value) {
            Some(group) => groups.push(group),
            None => problems.add(&list_path.index(index), "must be a number below 2^32 - 1"),
        }
    }
    let uid = uid?;
    Some(User {
        uid,
        gid: gid.unwrap_or(uid),
        groups,
    })
}

/// A user or group id. The highest number means *none* to the kernel.
fn id(value: &Value) -> Option<u32> {
    let number = value.as_u64()?;
    u32::try_from(number).ok().filter(|id| *id != u32::MAX)
}

fn read_only_paths(both: Both<'_>, problems: &mut Problems) -> Vec<String> {
    const KEY: &str = "readOnlyPaths";
    let Some(holder) = both.holder(KEY, problems) else {
        return Vec::new();
    };
    let path = holder.path.key(KEY);
    let paths = holder.texts(KEY, problems);
    let (most, longest) = MOST_PATHS;
    if paths.len() > most {
        problems.add(
            &path,
            format!("has {} entries, {most} are allowed", paths.len()),
        );
        return Vec::new();
    }
    for (index, one) in paths.iter().enumerate() {
        if !one.starts_with('/') || one.contains('\0') || one.len() > longest {
            problems.add(&path.index(index), "must be an absolute path without NUL");
        }
    }
    paths
}
