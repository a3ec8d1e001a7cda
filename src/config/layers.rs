//! The three sources as they are, before anybody asks whether their keys exist: every value under its dotted path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::rule::Given;
use super::schema::secret_names;

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if any.
    pub file: Option<PathBuf>,
    /// The environment. Settings are the `FANFARE_…` variables; others only matter where a `secret_env` names them.
    pub env: Vec<(String, String)>,
    /// `KEY=VALUE` pairs from the command line, such as `server.listen` and `127.0.0.1:0`; the last of a key counts.
    pub overrides: Vec<(String, String)>,
}

/// One source, in the order in which they win.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Layer {
    CommandLine,
    Environment,
    File,
}

impl Layer {
    pub(super) const ALL: [Self; 3] = [Self::CommandLine, Self::Environment, Self::File];
}

/// What a source says under one name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) given: Given,
    /// The line of the file, counted from 1; 0 in the other layers.
    line: usize,
}

/// Where a mistake was made. Sorts in reading order: down the file, then the environment, then the command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    order: (u8, usize),
    /// What a message begins with.
    pub(super) text: String,
}

impl Place {
    /// An environment variable.
    pub(super) fn of_variable(name: &str) -> Self {
        Self { order: (1, 0), text: name.to_owned() }
    }
}

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Layers {
    file_name: String,
    /// By dotted path; list entries have their index in it.
    pub(super) file: BTreeMap<String, Entry>,
    /// By variable name.
    pub(super) env: BTreeMap<String, Entry>,
    /// By dotted path.
    pub(super) overrides: BTreeMap<String, Entry>,
}

impl Layers {
    /// # Errors
    /// The file cannot be read or is not TOML. Nothing else can be said about it then, so this is all that is reported.
    pub(super) fn read(sources: &Sources) -> Result<Self, Vec<String>> {
        let untyped =
            |(name, text): &(String, String)| (name.clone(), Entry { given: Given::Untyped(text.clone()), line: 0 });
        let mut layers = Self {
            env: sources.env.iter().map(untyped).collect(),
            overrides: sources.overrides.iter().map(untyped).collect(),
            ..Self::default()
        };
        if let Some(path) = &sources.file {
            layers.file_name = path.display().to_string();
            layers.file = read_file(path, &layers.file_name)?;
        }
        Ok(layers)
    }

    /// The same with a file that is not on the disk.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of_text(
        name: &str,
        file: &str,
        env: &[(String, String)],
        overrides: &[(String, String)],
    ) -> Result<Self, Vec<String>> {
        let sources = Sources { file: None, env: env.to_vec(), overrides: overrides.to_vec() };
        Ok(Self { file_name: name.to_owned(), file: parse(file, name)?, ..Self::read(&sources)? })
    }

    pub(super) fn get(&self, layer: Layer, path: &str) -> Option<&Entry> {
        match layer {
            Layer::CommandLine => self.overrides.get(path),
            Layer::Environment => self.env.get(&env_name(path)),
            Layer::File => self.file.get(path),
        }
    }

    /// What a source says of a setting. A table comes with all that is in it; on the command line it may have only that.
    pub(super) fn value(&self, layer: Layer, path: &str) -> Option<Cow<'_, Given>> {
        let entry = self.get(layer, path).map(|entry| &entry.given);
        let below = || self.map_below(layer, path).into_values().collect::<Vec<_>>();
        match entry {
            Some(Given::Table) => Some(Cow::Owned(Given::Map(below()))),
            Some(given) => Some(Cow::Borrowed(given)),
            None if layer == Layer::CommandLine => {
                Some(below()).filter(|map| !map.is_empty()).map(|map| Cow::Owned(Given::Map(map)))
            }
            None => None,
        }
    }

    /// The entries of a table, by path: key and value of each. The environment has none, as its names have no case.
    pub(super) fn map_below(&self, layer: Layer, path: &str) -> BTreeMap<String, (String, Given)> {
        let entries = match layer {
            Layer::CommandLine => &self.overrides,
            Layer::Environment => return BTreeMap::new(),
            Layer::File => &self.file,
        };
        let prefix = format!("{path}.");
        let below = entries.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        below
            .map(|(name, entry)| {
                (name.clone(), (name[prefix.len()..].trim_matches('"').to_owned(), entry.given.clone()))
            })
            .collect()
    }

    /// Whether a source has this table or anything in it.
    pub(super) fn has_table(&self, path: &str) -> bool {
        Layer::ALL.into_iter().any(|layer| self.has_table_in(layer, path))
    }

    fn has_table_in(&self, layer: Layer, path: &str) -> bool {
        let (entries, prefix) = match layer {
            Layer::CommandLine => (&self.overrides, format!("{path}.")),
            Layer::Environment => (&self.env, format!("{}_", env_name(path))),
            Layer::File => (&self.file, format!("{path}.")),
        };
        let first_below = entries.range(prefix.clone()..).next().map(|(name, _)| name);
        self.get(layer, path).is_some() || first_below.is_some_and(|name| name.starts_with(&prefix))
    }

    /// Where the value of `path` comes from, or else where it could have been given.
    pub(super) fn place(&self, path: &str) -> Place {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        // That of a secret may be given in three ways; other settings have only one, which is the first of them.
        let names = secret_names(path);
        let name = |layer| names.iter().find(|name| self.get(layer, name).is_some());
        let given = Layer::ALL.into_iter().find_map(|layer| Some((layer, &**name(layer)?)));
        let near = || Layer::ALL.into_iter().rev().find(|layer| self.has_table_in(*layer, parent));
        match given.or_else(|| Some((near()?, path))) {
            Some((layer, path)) => self.place_in(layer, path),
            None => Place { order: (0, 0), text: path.to_owned() },
        }
    }

    /// The place of `path` in this layer; in the file that is its line or, if it is missing, that of its table.
    pub(super) fn place_in(&self, layer: Layer, path: &str) -> Place {
        match layer {
            Layer::CommandLine => Place { order: (2, 0), text: format!("--set {path}") },
            Layer::Environment => Place::of_variable(&env_name(path)),
            Layer::File => {
                let parent = || self.file.get(path.rsplit_once('.')?.0);
                let line = self.file.get(path).or_else(parent).map_or(1, |entry| entry.line);
                Place { order: (0, line), text: format!("{}:{line}: {path}", self.file_name) }
            }
        }
    }
}

/// The environment variable of a key: `server.listen` is `FANFARE_SERVER_LISTEN`.
pub(super) fn env_name(path: &str) -> String {
    format!("FANFARE_{}", path.replace('.', "_").to_ascii_uppercase())
}

fn read_file(path: &Path, name: &str) -> Result<BTreeMap<String, Entry>, Vec<String>> {
    let text = fs::read_to_string(path).map_err(|error| vec![format!("{name}: cannot be read: {error}")])?;
    parse(&text, name)
}

fn parse(text: &str, name: &str) -> Result<BTreeMap<String, Entry>, Vec<String>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let describe = |error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            let column = before[line_start..].chars().count() + 1;
            format!("{name}:{}:{column}: not TOML: {}", line_of(text, before.len()), error.message())
        };
        return Err(errors.into_iter().map(describe).collect());
    }
    let mut entries = BTreeMap::new();
    flatten(table.get_ref(), "", text, &mut entries);
    Ok(entries)
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

fn flatten(table: &DeTable<'_>, prefix: &str, text: &str, entries: &mut BTreeMap<String, Entry>) {
    for (key, value) in table {
        let name = key.get_ref();
        let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        // Quoted, so that `"server.listen"` is not taken for the `listen` of `[server]`.
        let name = if bare { name.to_string() } else { format!("{name:?}") };
        let path = format!("{prefix}{name}");
        let line = line_of(text, key.span().start);
        entries.insert(path.clone(), Entry { given: given(value.get_ref()), line });
        match value.get_ref() {
            DeValue::Table(table) => flatten(table, &format!("{path}."), text, entries),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let DeValue::Table(table) = item.get_ref() else { continue };
                    let line = line_of(text, item.span().start);
                    entries.insert(format!("{path}.{index}"), Entry { given: Given::Table, line });
                    flatten(table, &format!("{path}.{index}."), text, entries);
                }
            }
            _ => {}
        }
    }
}

fn given(value: &DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Text(text.to_string()),
        // What is too big even for 128 bits is out of every range as well.
        DeValue::Integer(number) => {
            Given::Integer(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Boolean(flag) => Given::Boolean(*flag),
        DeValue::Float(_) => Given::Other("a floating-point number"),
        DeValue::Datetime(_) => Given::Other("a date"),
        DeValue::Array(items) => Given::List(items.iter().map(|item| given(item.get_ref())).collect()),
        DeValue::Table(_) => Given::Table,
    }
}
