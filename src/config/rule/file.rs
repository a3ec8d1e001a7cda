//! Files and directories.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Given, Rule, quote};

/// A directory that need not exist yet, or none.
pub(in crate::config) fn directory() -> Rule<Option<PathBuf>> {
    let read = |given: &Given| match given.text() {
        Some("") => Ok(None),
        Some(path) if !PathBuf::from(path).is_file() => Ok(Some(PathBuf::from(path))),
        Some(_) => Err(format!("{given} is a file")),
        None => Err(format!("{given} is not a path")),
    };
    Rule::new("the path of a directory, or nothing", read, |path: &Option<PathBuf>| {
        quote(&path.as_deref().unwrap_or_else(|| Path::new("")).to_string_lossy())
    })
}

/// The path of a file that can be opened.
pub(in crate::config) fn readable_file() -> Rule<PathBuf> {
    let read = |given: &Given| {
        let path = given.text().ok_or_else(|| format!("{given} is not a path"))?;
        // A directory opens well enough on Unix; it is reading it that fails.
        let opened = File::open(path).and_then(|file| file.metadata());
        match opened {
            Ok(metadata) if metadata.is_file() => Ok(PathBuf::from(path)),
            Ok(_) => Err(format!("{given} is not a file")),
            Err(error) => Err(format!("{given} cannot be read: {error}")),
        }
    };
    let rule = Rule::new("the path of a readable PEM file", read, |path: &PathBuf| quote(&path.to_string_lossy()));
    Rule { names_a_file: true, ..rule }
}

/// The path of a file that can be opened, or none.
pub(in crate::config) fn optional_file() -> Rule<Option<PathBuf>> {
    let Rule { read, write, .. } = readable_file();
    let read = move |given: &Given| match given.text() {
        Some("") => Ok(None),
        _ => read(given).map(Some),
    };
    let write = move |path: &Option<PathBuf>| path.as_ref().map_or_else(|| quote(""), &*write);
    Rule { names_a_file: true, ..Rule::new("the path of a readable PEM file, or nothing", read, write) }
}
