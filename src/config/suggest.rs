//! "Did you mean": finds the key that somebody may have had in mind.

use std::collections::{BTreeMap, BTreeSet};

use super::layers::env_name;
use super::schema;

/// Names less alike than this are not the same name with a slip in it.
const ALIKE: f64 = 0.7;

/// Said of a table that is given a value on the command line or in the environment.
const TABLE: &str = "; this is a table, and only the keys in it have values";

/// All that could be meant, by full path.
pub(super) struct KnownNames {
    keys: BTreeSet<String>,
    tables: BTreeSet<String>,
    /// How many entries each list has.
    lists: BTreeMap<String, usize>,
}

impl KnownNames {
    /// `keys` and `tables` are those of this run; whatever it had no list entry for is added.
    pub(super) fn new(keys: &BTreeSet<String>, tables: &BTreeSet<String>, lists: &BTreeMap<String, usize>) -> Self {
        let (mut keys, mut tables) = (keys.clone(), tables.clone());
        for (key, _) in schema::all_keys() {
            tables.extend(key.match_indices('.').map(|(at, _)| key[..at].to_owned()));
            keys.insert(key);
        }
        Self { keys, tables, lists: lists.clone() }
    }

    /// The rest of a message about the unknown `path`.
    pub(super) fn like_path(&self, path: &str) -> String {
        if self.tables.contains(path) {
            return TABLE.to_owned();
        }
        if let Some(next) = self.next_entry(path, |list| format!("{list}.")) {
            return next;
        }
        let (table, name) = split(path);
        let known = || self.tables.iter().chain(&self.keys);
        let elsewhere = known().filter(|known| split(known).1 == name);
        if let Some(known) = elsewhere.max_by_key(|known| common_prefix(known, path)) {
            return format!("; did you mean `{known}`?");
        }
        let siblings = known().map(|known| split(known)).filter(|(parent, _)| *parent == table);
        did_you_mean(name, siblings.map(|(_, name)| name.to_owned()))
    }

    /// The rest of a message about the unknown variable `name`.
    pub(super) fn like_variable(&self, name: &str) -> String {
        if self.tables.iter().any(|table| env_name(table) == name) {
            return TABLE.to_owned();
        }
        let next = self.next_entry(name, |list| env_name(list) + "_");
        next.unwrap_or_else(|| did_you_mean(name, self.keys.iter().map(|path| env_name(path))))
    }

    /// Says so if `name` leaves out entries of a list.
    fn next_entry(&self, name: &str, prefix: impl Fn(&str) -> String) -> Option<String> {
        self.lists.iter().find_map(|(list, length)| {
            let prefix = prefix(list);
            let index: usize = name.strip_prefix(&prefix)?.split(['.', '_']).next()?.parse().ok()?;
            (index > *length).then(|| format!("; the next entry of this list is {prefix}{length}"))
        })
    }
}

/// A path as its table and its name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn common_prefix(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
}

/// Of names that are equally alike, the last one counts.
fn did_you_mean(name: &str, known: impl Iterator<Item = String>) -> String {
    let score = |known: &str| match strsim::normalized_damerau_levenshtein(name, known) {
        // `drain` may well mean `drain_period`, however much longer that is.
        score if score < ALIKE && name.len() > 2 && known.starts_with(name) => ALIKE,
        // One slip is much of a short name.
        score if score < ALIKE && strsim::damerau_levenshtein(name, known) == 1 => ALIKE,
        score => score,
    };
    let scored = known.map(|known| (score(&known), known));
    match scored.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((score, known)) if score >= ALIKE => format!("; did you mean `{known}`?"),
        _ => "; `fanfare config --defaults` shows all keys".to_owned(),
    }
}
