//! Settings as they were given: which key, which value, and where it was written, so that every
//! complaint can say where to look.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};

use super::keys;
use super::parse::{self, BadEscape};

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// On the command line, as this option.
    Argument(String),
    /// Nowhere: the setting is missing, or is one that ringkeeper assumes.
    Nowhere,
}

impl Origin {
    /// Whether it is this file.
    pub fn is_in(&self, file: &Path) -> bool {
        matches!(self, Self::File { path, .. } if path == file)
    }
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, without the prefix that system properties have.
    pub key: String,
    /// The value, without blanks around it.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

/// A setting of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// What the user typed it as, for example `--client-port`.
    pub option: String,
    /// The key that it sets.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Something wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// The key.
    pub key: String,
    /// The value, if there is one.
    pub value: Option<String>,
    /// What is wrong, as the rest of a sentence that begins with key and value.
    pub reason: String,
}

/// Something that the log should say once it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub level: tracing::Level,
    /// What to say.
    pub text: String,
}

/// All settings of a start, one per key.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    by_key: BTreeMap<String, Setting>,
    /// Keys that were written more than once in files.
    pub(super) notes: Vec<Note>,
}

impl Settings {
    /// Adds what the text of a file says. Within files, the last setting of a key counts.
    pub fn add_file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), BadEscape> {
        for entry in parse::parse(bytes)? {
            let origin = Origin::File { path: path.to_owned(), line: entry.line };
            self.add(Setting { key: entry.key, value: entry.value, origin });
        }
        Ok(())
    }

    /// Adds a setting of the command line, which counts more than any file.
    pub fn add_argument(&mut self, argument: &Argument) {
        let origin = Origin::Argument(argument.option.clone());
        let key = keys::plain(argument.key.trim()).to_owned();
        let value = argument.value.trim().to_owned();
        self.by_key.insert(key.clone(), Setting { key, value, origin });
    }

    /// Adds settings that count more than these.
    pub fn overrule(&mut self, others: Self) {
        self.by_key.extend(others.by_key);
    }

    fn add(&mut self, setting: Setting) {
        let key = keys::plain(&setting.key).to_owned();
        let setting = Setting { key: key.clone(), ..setting };
        match self.by_key.entry(key) {
            Entry::Vacant(place) => {
                place.insert(setting);
            }
            Entry::Occupied(mut place) => {
                self.notes.push(Note::warn(format!(
                    "{}: {} is set again; this one counts, not that of {}",
                    setting.origin,
                    setting.key,
                    place.get().origin
                )));
                place.insert(setting);
            }
        }
    }

    /// The setting of `key`.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.by_key.get(key)
    }

    /// All settings, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.by_key.values()
    }

    /// The settings whose keys begin with `prefix`, by key.
    pub fn family<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Setting> {
        self.by_key.values().filter(move |setting| setting.key.starts_with(prefix))
    }
}

impl Setting {
    /// What is wrong with this setting.
    pub fn problem(&self, reason: impl Into<String>) -> Problem {
        Problem {
            origin: self.origin.clone(),
            key: self.key.clone(),
            value: Some(self.value.clone()),
            reason: reason.into(),
        }
    }
}

impl Problem {
    /// What is wrong with there being no `key`.
    pub fn missing(key: &str, reason: impl Into<String>) -> Self {
        Self { origin: Origin::Nowhere, key: key.to_owned(), value: None, reason: reason.into() }
    }
}

impl Note {
    /// Something that an operator should look into.
    pub fn warn(text: String) -> Self {
        Self { level: tracing::Level::WARN, text }
    }

    /// Something good to know.
    pub fn info(text: String) -> Self {
        Self { level: tracing::Level::INFO, text }
    }

    /// Something for who looks closely.
    pub fn debug(text: String) -> Self {
        Self { level: tracing::Level::DEBUG, text }
    }

    /// Writes it to the log.
    pub fn log(&self) {
        match self.level {
            tracing::Level::WARN => tracing::warn!("{}", self.text),
            tracing::Level::INFO => tracing::info!("{}", self.text),
            _ => tracing::debug!("{}", self.text),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Argument(option) => f.write_str(option),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => {
                write!(f, "{}: {}={value}: {}", self.origin, self.key, self.reason)
            }
            None => write!(f, "{}: {} {}", self.origin, self.key, self.reason),
        }
    }
}
