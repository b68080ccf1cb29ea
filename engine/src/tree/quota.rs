//! Quotas: which subtrees have one, what theirs is, how much is used.
//!
//! Limits are znodes that clients write, below `/zookeeper/quota`. Beside them each server keeps
//! its own count of what is used, in the same text form, outside of transactions and digest.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::btree::View;
use crate::error_code::ErrorCode;
use crate::path::{QUOTA, parent};

use super::znode::stored_data_bytes;
use super::{path, read, znode};

const LIMITS_NAME: &str = "zookeeper_limits";
const STATS_NAME: &str = "zookeeper_stats";

const COUNT: &str = "count";
const BYTES: &str = "bytes";
const COUNT_HARD: &str = "countHardLimit";
const BYTES_HARD: &str = "byteHardLimit";

/// Longer texts are not read as numbers: none of ZooKeeper's is, and each change of a znode below
/// reads them.
const TEXT_BYTES_MAX: usize = 4096;

/// The subtrees that have a quota.
#[derive(Clone, Debug, Default)]
pub(super) struct Quotas {
    /// How many znodes hold limits of each: blank names in between make several paths one.
    pub(super) paths: BTreeMap<String, u32>,
    /// Counts the changes of the set, so that a rollback knows whether there were any.
    changes: u64,
}

/// What a znode is to quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// It holds the limits of this path.
    Limits(&'a str),
    /// It holds the statistics of this path.
    Stats(&'a str),
    /// Nothing.
    None,
}

/// What a path is to quotas. The path that it is about is never empty.
pub(super) fn role(path: &str) -> Role<'_> {
    // Compat: Quotas.trimQuotaPath. Where Java throws for an empty path, it is nothing.
    let Some((about, name)) = path.strip_prefix(QUOTA).and_then(|rest| rest.rsplit_once('/'))
    else {
        return Role::None;
    };
    match name {
        _ if about.is_empty() => Role::None,
        LIMITS_NAME => Role::Limits(about),
        STATS_NAME => Role::Stats(about),
        _ => Role::None,
    }
}

/// Where the statistics of `path` are.
pub(super) fn stats_path(path: &str) -> String {
    format!("{QUOTA}{path}/{STATS_NAME}")
}

fn limits_path(path: &str) -> String {
    format!("{QUOTA}{path}/{LIMITS_NAME}")
}

impl Quotas {
    /// Finds all quotas of a state.
    pub(super) fn load(view: &impl View) -> Self {
        let mut quotas = Self::default();
        let mut pending = vec![QUOTA.to_owned()];
        while let Some(parent) = pending.pop() {
            let mut children = read::children(view, &parent);
            while let Some(name) = children.next_name() {
                let path = format!("{parent}/{name}");
                if let Role::Limits(about) = role(&path) {
                    quotas.add(about);
                }
                pending.push(path);
            }
        }
        quotas
    }

    pub(super) fn add(&mut self, path: &str) {
        self.changes += 1;
        *self.paths.entry(without_blank_names(path).into_owned()).or_default() += 1;
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.changes += 1;
        let path = without_blank_names(path);
        if let Some(limits) = self.paths.get_mut(&*path) {
            *limits -= 1;
            if *limits == 0 {
                self.paths.remove(&*path);
            }
        }
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str)
    }

    /// The nearest one that encloses `path`.
    pub(super) fn nearest(&self, path: &str) -> Option<&str> {
        if self.paths.is_empty() {
            return None;
        }
        // Compat: DataTree.getMaxPrefixWithQuota; the root has none.
        let path = without_blank_names(path);
        let mut prefix = &*path;
        while !prefix.is_empty() {
            if let Some((found, _)) = self.paths.get_key_value(prefix) {
                return Some(found);
            }
            prefix = parent(prefix)?;
        }
        None
    }
}

/// Compat: PathTrie.split passes over names that are only white space.
fn without_blank_names(path: &str) -> Cow<'_, str> {
    let is_blank = |name: &str| name.chars().all(|character| character <= ' ');
    let mut names = path.split('/').skip(1);
    if !names.any(is_blank) {
        return Cow::Borrowed(path);
    }
    let names = path.split('/').filter(|name| !is_blank(name));
    Cow::Owned(names.flat_map(|name| ["/", name]).collect())
}

/// Limits or statistics: numbers by name (`StatsTrack`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QuotaNumbers {
    numbers: BTreeMap<String, i64>,
}

impl QuotaNumbers {
    /// Reads the text form; none where Java throws.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        // Compat: StatsTrack(String).
        let text = String::from_utf8_lossy(text);
        let text = text.trim_end_matches([',', ';']);
        let mut numbers = BTreeMap::new();
        if text.is_empty() {
            return Some(Self { numbers });
        }
        let pairs = text.split([',', ';']).enumerate();
        // Separators in a row are one; only in front of the first pair they leave an empty one.
        for (_, pair) in pairs.filter(|&(index, pair)| index == 0 || !pair.is_empty()) {
            let mut parts = pair.trim_end_matches('=').split('=');
            let name = parts.next()?;
            let number = match parts.next()? {
                "" => -1,
                number => number.parse().ok()?,
            };
            numbers.insert(name.to_owned(), number);
        }
        Some(Self { numbers })
    }

    /// Counted or allowed znodes; -1 if not given.
    pub(super) fn count(&self) -> i64 {
        self.get(COUNT)
    }

    /// Counted or allowed bytes; -1 if not given.
    pub(super) fn bytes(&self) -> i64 {
        self.get(BYTES)
    }

    /// Most znodes that may exist; -1 for any number.
    pub(super) fn count_hard_limit(&self) -> i64 {
        self.get(COUNT_HARD)
    }

    /// Most bytes that may exist; -1 for any number.
    pub(super) fn bytes_hard_limit(&self) -> i64 {
        self.get(BYTES_HARD)
    }

    /// With other counts.
    pub(super) fn set(&mut self, count: i64, bytes: i64) {
        self.numbers.insert(COUNT.to_owned(), count);
        self.numbers.insert(BYTES.to_owned(), bytes);
    }

    /// The text form.
    pub(super) fn to_text(&self) -> String {
        // Compat: StatsTrack.toString; the lone "=" makes old parsers stop there.
        let mut text = format!("{COUNT}={},{BYTES}={}", self.count(), self.bytes());
        let others = self.numbers.iter().filter(|(name, _)| *name != COUNT && *name != BYTES);
        for (index, (name, number)) in others.enumerate() {
            text.push_str(if index == 0 { "=;" } else { ";" });
            text.push_str(&format!("{name}={number}"));
        }
        text
    }

    fn get(&self, name: &str) -> i64 {
        self.numbers.get(name).copied().unwrap_or(-1)
    }
}

/// The numbers in a znode; none if it is missing or holds something else.
pub(super) fn load_numbers(view: &impl View, path: &str) -> Option<QuotaNumbers> {
    QuotaNumbers::parse(&znode(view, path)?.into_data(view)?)
}

/// Whether a change fits the hard limits of the quota of `path`.
pub(super) fn check(
    view: &impl View,
    path: &str,
    bytes_more: i64,
    count_more: i64,
) -> Result<(), ErrorCode> {
    // Compat: ZooKeeperServer.checkQuota; soft limits only make it log. StatsTrack throws where
    // there are no numbers.
    let read = |path: String| {
        let Some(found) = znode(view, &path) else { return Ok(None) };
        let numbers = found.into_data(view).and_then(|data| QuotaNumbers::parse(&data));
        numbers.map(Some).ok_or(ErrorCode::MarshallingError)
    };
    let Some(limits) = read(limits_path(path))? else { return Ok(()) };
    let counts = count_more != 0 && limits.count().max(limits.count_hard_limit()) > -1;
    let weighs = bytes_more != 0 && limits.bytes().max(limits.bytes_hard_limit()) > -1;
    if !counts && !weighs {
        return Ok(());
    }
    let Some(used) = read(stats_path(path))? else { return Ok(()) };
    let exceeds = |used: i64, more: i64, limit: i64| {
        more != 0 && limit > -1 && used.saturating_add(more) > limit
    };
    if exceeds(used.count(), count_more, limits.count_hard_limit())
        || exceeds(used.bytes(), bytes_more, limits.bytes_hard_limit())
    {
        return Err(ErrorCode::QuotaExceeded);
    }
    Ok(())
}

/// Znodes and bytes of data at and below `path`.
pub(super) fn usage(view: &impl View, path: &str) -> (i64, i64) {
    let path = path::canonical(path);
    let Some(znode) = znode(view, path) else { return (0, 0) };
    let (mut count, mut bytes) = (1, znode.data_bytes() as i64);
    read::visit_descendants(view, path, |value| {
        count += 1;
        bytes += stored_data_bytes(value) as i64;
    });
    (count, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(text: &str, expect: Option<&str>) {
        let numbers = QuotaNumbers::parse(text.as_bytes());
        assert_eq!(numbers.map(|numbers| numbers.to_text()).as_deref(), expect, "{text:?}");
    }

    #[test]
    fn numbers_have_javas_text_form() {
        check_text("", Some("count=-1,bytes=-1"));
        check_text("count=1,bytes=2", Some("count=1,bytes=2"));
        check_text("bytes=2", Some("count=-1,bytes=2"));
        let hard = "count=1,bytes=2=;byteHardLimit=4;countHardLimit=3";
        check_text(hard, Some(hard));
        check_text("count=1,bytes=2=;countHardLimit=3;byteHardLimit=4", Some(hard));
        check_text("count==,bytes=2", None);
        check_text("count==5", Some("count=-1,bytes=-1"));
    }

    #[test]
    fn garbage_is_not_numbers() {
        for text in ["x", "count", "count=", "count=a", ",count=1", "=", "count=1,x"] {
            check_text(text, None);
        }
        check_text(&format!("{}=1", "x".repeat(TEXT_BYTES_MAX)), None);
    }

    #[test]
    fn roles_of_paths() {
        assert_eq!(role("/zookeeper/quota/a/b/zookeeper_limits"), Role::Limits("/a/b"));
        assert_eq!(role("/zookeeper/quota/a/zookeeper_stats"), Role::Stats("/a"));
        for path in ["/zookeeper/quota/zookeeper_limits", "/zookeeper/quota", "/a/zookeeper_limits"]
        {
            assert_eq!(role(path), Role::None, "{path}");
        }
    }

    #[test]
    fn the_nearest_quota_counts() {
        let mut quotas = Quotas::default();
        assert_eq!(quotas.nearest("/a"), None);
        quotas.add("/a");
        quotas.add("/a/b/c");
        assert_eq!(quotas.nearest("/a/b/c/d"), Some("/a/b/c"));
        assert_eq!(quotas.nearest("/a/b/c"), Some("/a/b/c"));
        assert_eq!(quotas.nearest("/a/b"), Some("/a"));
        assert_eq!(quotas.nearest("/ab"), None);
        assert_eq!(quotas.nearest("/"), None);
        assert_eq!(quotas.nearest("/a/ /b/c"), Some("/a/b/c"));
        quotas.add("/a/ ");
        quotas.remove("/a");
        assert_eq!(quotas.nearest("/a/b"), Some("/a"), "there are limits of the same path");
        quotas.remove("/a/ ");
        assert_eq!(quotas.nearest("/a/b"), None);
    }
}
