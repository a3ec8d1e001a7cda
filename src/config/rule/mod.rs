//! What a value may be: one [`Rule`] a setting, made by one function per kind of value. A rule reads what a source
//! gives, says in words what it expects, and writes the value back as TOML.

mod amount;
mod file;
mod network;
mod word;

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

pub use network::is_url;

pub(super) use amount::*;
pub(super) use file::*;
pub(super) use network::*;
pub(super) use word::*;

/// Stands for every secret. Loading refuses it, so that nobody runs with a secret that everybody knows.
pub(super) const MASK: &str = "********";

/// What a source says. The file has types; the environment and the command line only have text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    Untyped(String),
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Given>),
    Table,
    /// A table with what is in it, where its keys are the user's.
    Map(Vec<(String, Given)>),
    /// A TOML type that no setting has: its name with the article.
    Other(&'static str),
}

impl Given {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Untyped(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Untyped(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// As a message shows it: on one line, text in quotes.
impl Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untyped(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => number.fmt(f),
            Self::Boolean(flag) => flag.fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Table | Self::Map(_) => f.write_str("a table"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// The values of one setting.
pub(super) struct Rule<T> {
    /// Completes the sentence "expected …".
    pub(super) expected: String,
    /// There is no default.
    pub(super) required: bool,
    /// Whether a value is allowed depends on the files of this machine.
    pub(super) names_a_file: bool,
    /// The value, or what is wrong with what was given.
    pub(super) read: Reads<T>,
    /// The value as TOML.
    pub(super) write: Writes<T>,
}

type Writes<T> = Box<dyn Fn(&T) -> String>;

type Reads<T> = Box<dyn Fn(&Given) -> Result<T, String>>;

impl<T> Rule<T> {
    fn new(
        expected: impl Into<String>,
        read: impl Fn(&Given) -> Result<T, String> + 'static,
        write: impl Fn(&T) -> String + 'static,
    ) -> Self {
        let (read, write) = (Box::new(read), Box::new(write));
        Self { expected: expected.into(), required: false, names_a_file: false, read, write }
    }

    /// The same rule for a setting without a default.
    pub(super) fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

impl<T: 'static> Rule<Vec<T>> {
    /// The same rule for a list that must not be empty.
    pub(super) fn not_empty(self) -> Self {
        let Self { read, .. } = self;
        let read = Box::new(move |given: &Given| match read(given) {
            Ok(items) if items.is_empty() => Err("empty".to_owned()),
            read => read,
        });
        Self { read, ..self }
    }
}

/// A list of texts. `noun` is what one of them is called where it is not one.
pub(super) fn texts(
    noun: &'static str,
    expected: impl Into<String>,
    allowed: impl Fn(&str) -> bool + 'static,
) -> Rule<Vec<String>> {
    let read = move |given: &Given| {
        let text = |item: &Given| match item.text() {
            Some(text) if allowed(text) => Ok(text.to_owned()),
            _ => Err(format!("{item} is not {noun}")),
        };
        items(given)?.iter().map(text).collect()
    };
    Rule::new(expected, read, |items: &Vec<String>| list(items.iter().map(|item| quote(item))))
}

/// A list of some of these words, each once. `noun` is what an item is called where it is not one.
pub(super) fn words<T: Copy + PartialEq + 'static>(
    noun: &'static str,
    words: &'static [(&'static str, T)],
    name: fn(T) -> &'static str,
) -> Rule<Vec<T>> {
    let read = move |given: &Given| {
        let mut chosen = Vec::new();
        for item in items(given)?.iter() {
            let word = words.iter().find(|(word, _)| item.text() == Some(word));
            let (_, value) = word.ok_or_else(|| format!("{item} is not {noun}"))?;
            if !chosen.contains(value) {
                chosen.push(*value);
            }
        }
        Ok(chosen)
    };
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    Rule::new(format!("a list of {}", names.join(", ")), read, move |values: &Vec<T>| {
        list(values.iter().map(|value| quote(name(*value))))
    })
}

/// One of a few words.
pub(super) fn choice<T: Copy + PartialEq + 'static>(
    noun: &'static str,
    words: &'static [(&'static str, T)],
) -> Rule<T> {
    let read = move |given: &Given| {
        let chosen = words.iter().find(|(word, _)| given.text() == Some(word));
        chosen.map(|(_, value)| *value).ok_or_else(|| format!("{given} is not {noun}"))
    };
    let mut expected = String::new();
    for (index, (word, _)) in words.iter().enumerate() {
        expected += match words.len() - index {
            _ if index == 0 => "",
            1 => " or ",
            _ => ", ",
        };
        expected += &quote(word);
    }
    Rule::new(expected, read, |value: &T| {
        let word = words.iter().find(|(_, known)| known == value);
        quote(word.map_or("", |(word, _)| word))
    })
}

fn text(noun: &'static str, expected: &str, allowed: impl Fn(&str) -> bool + 'static) -> Rule<String> {
    let read = move |given: &Given| {
        let text = given.text().filter(|text| allowed(text)).map(str::to_owned);
        text.ok_or_else(|| format!("{given} is not {noun}"))
    };
    Rule::new(expected, read, |text| quote(text))
}

/// The entries of a list, which the environment and the command line separate by commas.
fn items(given: &Given) -> Result<Cow<'_, [Given]>, String> {
    match given {
        Given::List(items) => Ok(Cow::Borrowed(items)),
        Given::Untyped(text) if text.is_empty() => Ok(Cow::Borrowed(&[])),
        Given::Untyped(text) => Ok(text.split(',').map(|item| Given::Text(item.trim().to_owned())).collect()),
        _ => Err(format!("{given} is not a list")),
    }
}

/// A TOML array.
fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// A TOML string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => write!(quoted, "\\u{:04X}", u32::from(c)).expect("a String takes all"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_a_toml_string_of_the_same_text() {
        let awkward = "a\"b\\c\nd\u{1}e\u{7f}é";
        let document = format!("x = {}", quote(awkward));
        let table = toml::de::DeTable::parse(&document).unwrap();
        assert_eq!(table.get_ref()["x"].get_ref().as_str(), Some(awkward));
    }
}
