//! Layers command line > environment > file > default into a [`Config`], and collects every mistake on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::layers::{Layer, Layers, Place, Sources, env_name};
use super::memory_bounds::counts_for_memory;
use super::rule::{Given, MASK, Rule};
use super::schema::{self, Visitor, secret_names};
use super::suggest::KnownNames;
use super::{AppConfig, Config, Machine, Secret};

/// A configuration that passed every check.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// Everything that is wrong with the sources, one entry a mistake.
#[derive(Debug, thiserror::Error)]
#[error("{}", .mistakes.join("\n"))]
pub struct ConfigError {
    /// One line each: where, what was given, what is allowed.
    pub mistakes: Vec<String>,
    /// What is allowed but probably not meant in the rest.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    /// All mistakes at once: an unreadable file, a syntax error, an unknown key, a wrong type or an impossible value.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        Self::read(sources, None)
    }

    /// Reads all sources for a server that is about to start with them on this machine.
    ///
    /// # Errors
    /// Those of [`Config::load`]; and no apps, or the secret of the examples where other machines can connect.
    pub fn load_for_server(sources: &Sources, machine: &Machine) -> Result<Loaded, ConfigError> {
        Self::read(sources, Some(machine))
    }

    fn read(sources: &Sources, machine: Option<&Machine>) -> Result<Loaded, ConfigError> {
        let layers = Layers::read(sources).map_err(|mistakes| ConfigError { mistakes, warnings: Vec::new() })?;
        Self::of_layers(&layers, machine.map(|machine| (sources, machine)))
    }

    /// Makes one of what was read; `server` has the sources and the machine if a server is about to start with it.
    pub(super) fn of_layers(layers: &Layers, server: Option<(&Sources, &Machine)>) -> Result<Loaded, ConfigError> {
        let mut reader = Reader::new(layers);
        let mut config = Self::default();
        schema::node(&mut reader, &mut config);
        let mut defaults = AppConfig::new("", "", "");
        schema::app_defaults(&mut reader, &mut defaults);
        schema::apps(&mut reader, &mut config.apps, &defaults);
        reader.refuse_unknown_keys();
        let obstacles = if server.is_some() { config.obstacles() } else { Vec::new() };
        // The default that stands in for a refused address is not where anybody wants to listen.
        let is_unknown = ["server.listen", "admin.listen"].iter().any(|path| reader.refused.contains(*path));
        let mut conflicts = config.conflicts();
        conflicts.retain(|(path, _)| !(is_unknown && path == "admin.listen"));
        for (path, conflict) in conflicts.into_iter().chain(obstacles) {
            reader.refuse(&path, conflict);
        }
        let place = |(path, text): (String, String)| (layers.place(&path), text);
        let mut warnings: Vec<_> = config.warnings().into_iter().map(place).collect();
        let mut of_memory = None;
        if let Some((sources, machine)) = server {
            warnings.extend(config.exposures(layers, sources.file.as_deref(), reader.secret_files));
            let is_known = !reader.refused.iter().any(|path| counts_for_memory(path));
            of_memory = is_known.then(|| config.memory_warning(machine)).flatten();
        }
        let mut mistakes = reader.mistakes;
        // What was refused is not in the configuration, so nothing is known of it.
        warnings.retain(|(place, _)| mistakes.iter().all(|(refused, _)| refused != place));
        let line = |(place, text): (Place, String)| format!("{}: {text}", place.text);
        let warnings = warnings.into_iter().map(line).chain(of_memory).collect();
        if mistakes.is_empty() {
            return Ok(Loaded { config, warnings });
        }
        mistakes.sort_by(|(one, _), (other, _)| one.cmp(other));
        Err(ConfigError { mistakes: mistakes.into_iter().map(line).collect(), warnings })
    }
}

/// Fills the fields that a source has a value for, and remembers which keys exist.
struct Reader<'a> {
    layers: &'a Layers,
    /// The table being read.
    table: String,
    /// Every key that was asked for.
    keys: BTreeSet<String>,
    /// Every table, list and list entry that was asked for.
    tables: BTreeSet<String>,
    /// How many entries each list has.
    lists: BTreeMap<String, usize>,
    /// Variables that a `secret_env` names.
    secret_variables: BTreeSet<String>,
    /// Files that secrets came from.
    secret_files: Vec<(Place, PathBuf)>,
    /// Settings whose value was refused, so that they have their default here.
    refused: BTreeSet<String>,
    mistakes: Vec<(Place, String)>,
}

impl Visitor for Reader<'_> {
    fn key<T>(&mut self, name: &'static str, field: &mut T, rule: Rule<T>) {
        let (path, layers) = (self.path(name), self.layers);
        let mut replaced = false;
        for layer in Layer::ALL {
            let Some(given) = layers.value(layer, &path) else { continue };
            match (rule.read)(&given) {
                Ok(value) if !replaced => *field = value,
                Ok(_) => {}
                // It may be there on the machine that the file was written for.
                Err(_) if replaced && rule.names_a_file && given.text().is_some() => {}
                // Also if it is replaced: a file with a mistake is not left to be found by the next machine.
                Err(reason) => {
                    let place = layers.place_in(layer, &path);
                    self.mistakes.push((place, format!("{reason}; expected {}", rule.expected)));
                    if !replaced {
                        self.refused.insert(path.clone());
                    }
                }
            }
            replaced = true;
        }
        if !replaced && rule.required {
            self.refuse(&path, format!("missing; expected {}", rule.expected));
        }
        self.keys.insert(path);
    }

    fn secret(&mut self, name: &'static str, secret: &mut Secret) {
        match self.find_secret(name) {
            Some(found) => *secret = found,
            None => {
                let [plain, file, env] = secret_names(name);
                let path = self.path(name);
                self.refuse(&path, format!("missing; expected `{plain}`, `{file}` or `{env}`"));
            }
        }
    }

    fn optional_secret(&mut self, name: &'static str, secret: &mut Option<Secret>) {
        if let Some(found) = self.find_secret(name) {
            *secret = Some(found);
        }
    }

    fn map(&mut self, name: &'static str, map: &mut BTreeMap<String, Secret>, rule: Rule<BTreeMap<String, Secret>>) {
        let path = self.path(name);
        // What is below the path in a source is one value, whose keys are nobody's business but the user's.
        for layer in [Layer::CommandLine, Layer::File] {
            let below = self.layers.map_below(layer, &path);
            self.keys.extend(below.keys().cloned());
        }
        self.key(name, map, rule);
    }

    fn table(&mut self, name: &'static str, fields: impl FnOnce(&mut Self)) {
        let path = self.path(name);
        match self.layers.file.get(&path).map(|entry| &entry.given) {
            Some(Given::Table) | None => {}
            Some(_) => self.refuse(&path, format!("not a table; expected [{}]", header(&path))),
        }
        self.enter(path, fields);
    }

    fn optional<T: Clone>(
        &mut self,
        name: &'static str,
        table: &mut Option<T>,
        blank: &T,
        fields: fn(&mut Self, &mut T),
    ) {
        if self.layers.has_table(&self.path(name)) {
            let mut blank = blank.clone();
            self.table(name, |reader| fields(reader, &mut blank));
            *table = Some(blank);
        }
    }

    fn list<T: Clone>(&mut self, name: &'static str, list: &mut Vec<T>, blank: &T, fields: fn(&mut Self, &mut T)) {
        let path = self.path(name);
        match self.layers.file.get(&path).map(|entry| &entry.given) {
            Some(Given::List(items)) if items.iter().all(|item| *item == Given::Table) => {}
            Some(_) => self.refuse(&path, format!("not a list of tables; expected [[{}]]", header(&path))),
            None => {}
        }
        self.tables.insert(path.clone());
        let entries = (0..).map(|index| format!("{path}.{index}")).take_while(|entry| self.layers.has_table(entry));
        for entry in entries.collect::<Vec<_>>() {
            let mut item = blank.clone();
            self.enter(entry, |reader| fields(reader, &mut item));
            list.push(item);
        }
        self.lists.insert(path, list.len());
    }
}

impl<'a> Reader<'a> {
    fn new(layers: &'a Layers) -> Self {
        Self {
            layers,
            table: String::new(),
            keys: BTreeSet::new(),
            tables: BTreeSet::new(),
            lists: BTreeMap::new(),
            secret_variables: BTreeSet::new(),
            secret_files: Vec::new(),
            refused: BTreeSet::new(),
            mistakes: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> String {
        if self.table.is_empty() { name.to_owned() } else { format!("{}.{name}", self.table) }
    }

    fn enter(&mut self, table: String, fields: impl FnOnce(&mut Self)) {
        self.tables.insert(table.clone());
        let outer = std::mem::replace(&mut self.table, table);
        fields(self);
        self.table = outer;
    }

    fn refuse(&mut self, path: &str, text: String) {
        self.mistakes.push((self.layers.place(path), text));
    }

    /// The secret of that name, if a source has one. One that cannot be used is reported, and is empty here.
    fn find_secret(&mut self, name: &'static str) -> Option<Secret> {
        let (names, layers) = (secret_names(name), self.layers);
        let paths = names.clone().map(|name| self.path(&name));
        self.keys.extend(paths.clone());
        // All three are one setting: a variable replaces the file's `secret_file`, say.
        let mut found = None;
        for layer in Layer::ALL {
            let given = |path: &String| layers.get(layer, path).map(|entry| &entry.given);
            let all = paths.iter().enumerate().filter_map(|(way, path)| Some((way, path, given(path)?)));
            let all: Vec<_> = all.collect();
            // None of the values is shown: a secret in the wrong place is a secret all the same.
            match all[..] {
                [] => continue,
                [(way, path, given)] => match self.read_secret(way, given) {
                    Ok(_) if found.is_some() => {}
                    Ok(secret) => {
                        found = Some(Secret::new(secret));
                        let file = given.text().filter(|_| way == 1).map(PathBuf::from);
                        self.secret_files.extend(file.map(|file| (layers.place_in(layer, path), file)));
                    }
                    // As with other files, what is replaced may be there elsewhere.
                    Err(_) if found.is_some() && given.text().is_some() => {}
                    Err(reason) => self.mistakes.push((layers.place_in(layer, path), reason)),
                },
                _ => {
                    let [plain, file, env] = &names;
                    let text = format!("given more than once; expected one of `{plain}`, `{file}` and `{env}`");
                    self.mistakes.push((layers.place_in(layer, &paths[0]), text));
                }
            }
            found.get_or_insert_with(|| Secret::new(""));
        }
        found
    }

    /// `way` is the place of the setting among [`secret_names`].
    fn read_secret(&mut self, way: usize, given: &Given) -> Result<String, String> {
        let text = given.text().ok_or("not a string; expected a string")?;
        let secret = match way {
            1 => fs::read_to_string(text)
                .map(|content| content.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("the file cannot be read: {error}; expected a path"))?,
            2 => {
                self.secret_variables.insert(text.to_owned());
                let value = self.layers.env.get(text).and_then(|entry| entry.given.text());
                value.ok_or("the variable is not set; expected the name of an environment variable")?.to_owned()
            }
            _ => text.to_owned(),
        };
        match secret.trim() {
            "" => Err("empty; expected a secret".to_owned()),
            MASK => Err("the mask of a printed configuration; expected the secret itself".to_owned()),
            _ => Ok(secret),
        }
    }

    /// Whatever the sources have and nobody asked for.
    fn refuse_unknown_keys(&mut self) {
        let names = KnownNames::new(&self.keys, &self.tables, &self.lists);
        let layers = self.layers;
        // What stands in a table that is unknown, or where no table should be, is not reported on top of it.
        let mut closed: Vec<String> = Vec::new();
        for (path, entry) in &layers.file {
            if closed.iter().any(|table| path.starts_with(table)) {
                continue;
            }
            let known = self.keys.contains(path) || self.tables.contains(path);
            if !known {
                let text = format!("unknown key{}", names.like_path(path));
                self.mistakes.push((layers.place_in(Layer::File, path), text));
            }
            let is_table = entry.given == Given::Table;
            let misplaced = known && is_table == self.lists.contains_key(path);
            if !known || misplaced || self.keys.contains(path) {
                closed.push(format!("{path}."));
            }
        }
        for path in layers.overrides.keys().filter(|path| !self.keys.contains(*path)) {
            let text = format!("unknown key{}", names.like_path(path));
            self.mistakes.push((layers.place_in(Layer::CommandLine, path), text));
        }
        let variables: BTreeSet<String> = self.keys.iter().map(|path| env_name(path)).collect();
        for name in layers.env.keys().filter(|name| name.starts_with("FANFARE_") && !is_foreign(name)) {
            if !variables.contains(name) && !self.secret_variables.contains(name) {
                let place = Place::of_variable(name);
                self.mistakes.push((place, format!("unknown variable{}", names.like_variable(name))));
            }
        }
    }
}

/// A path as it stands in the brackets of a file: without indices.
fn header(path: &str) -> String {
    let names = path.split('.').filter(|segment| !segment.starts_with(|c: char| c.is_ascii_digit()));
    names.collect::<Vec<_>>().join(".")
}

/// Whether a `FANFARE_…` variable is not meant for the server: the command-line tools have a few of their own, and
/// Kubernetes describes a service called `fanfare` to every container beside it.
fn is_foreign(name: &str) -> bool {
    let tools = ["FANFARE_CONFIG", "FANFARE_URL", "FANFARE_APP_ID", "FANFARE_APP_KEY", "FANFARE_APP_SECRET"];
    tools.contains(&name)
        || name == "FANFARE_PORT"
        || ["FANFARE_PORT_", "FANFARE_SERVICE_"].iter().any(|p| name.starts_with(p))
}
