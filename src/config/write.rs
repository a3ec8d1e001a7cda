//! Writes a [`Config`] as the file it could have come from.

use std::collections::BTreeMap;

use super::rule::{MASK, Rule, quote};
use super::schema::{self, Visitor};
use super::{Config, Secret};

impl Config {
    /// The effective configuration as TOML. Every setting is there, with what an app inherited written out; durations
    /// and sizes have the largest unit that keeps them whole. Secrets are masked: put in, the text loads again.
    pub fn to_toml(&self) -> String {
        let mut config = self.clone();
        let mut writer = Writer::default();
        schema::node(&mut writer, &mut config);
        schema::apps(&mut writer, &mut config.apps, &super::AppConfig::new("", "", ""));
        writer.text
    }
}

#[derive(Default)]
struct Writer {
    text: String,
    /// The tables around the current key, without indices.
    tables: Vec<&'static str>,
}

impl Writer {
    fn section(&mut self, name: &'static str, brackets: [&str; 2], fields: impl FnOnce(&mut Self)) {
        self.tables.push(name);
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text += &format!("{gap}{}{}{}\n", brackets[0], self.tables.join("."), brackets[1]);
        fields(self);
        self.tables.pop();
    }
}

impl Visitor for Writer {
    fn key<T>(&mut self, name: &'static str, field: &mut T, rule: Rule<T>) {
        self.text += &format!("{name} = {}\n", (rule.write)(field));
    }

    fn secret(&mut self, name: &'static str, _: &mut Secret) {
        self.text += &format!("{name} = {}\n", quote(MASK));
    }

    fn optional_secret(&mut self, name: &'static str, secret: &mut Option<Secret>) {
        if let Some(secret) = secret {
            self.secret(name, secret);
        }
    }

    fn map(&mut self, name: &'static str, map: &mut BTreeMap<String, Secret>, _: Rule<BTreeMap<String, Secret>>) {
        let entries: Vec<_> = map.keys().map(|key| format!("{} = {}", quote(key), quote(MASK))).collect();
        let braced = if entries.is_empty() { String::new() } else { format!(" {} ", entries.join(", ")) };
        self.text += &format!("{name} = {{{braced}}}\n");
    }

    fn table(&mut self, name: &'static str, fields: impl FnOnce(&mut Self)) {
        self.section(name, ["[", "]"], fields);
    }

    fn optional<T: Clone>(&mut self, name: &'static str, table: &mut Option<T>, _: &T, fields: fn(&mut Self, &mut T)) {
        if let Some(table) = table {
            self.table(name, |v| fields(v, table));
        }
    }

    fn list<T: Clone>(&mut self, name: &'static str, list: &mut Vec<T>, _: &T, fields: fn(&mut Self, &mut T)) {
        for item in list {
            self.section(name, ["[[", "]]"], |v| fields(v, item));
        }
    }
}
