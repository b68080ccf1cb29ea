//! Paths: which ones a znode may have, and how they divide.
//!
//! Only writes check a path; a read looks it up as it came and finds nothing under a bad one.

use std::fmt::Write as _;

/// The root.
pub const ROOT: &str = "/";

/// The znode that ZooKeeper keeps its own below.
pub const ZOOKEEPER: &str = "/zookeeper";
/// Below it, for each path with a quota: its limits and what counts against them.
pub const QUOTA: &str = "/zookeeper/quota";
/// The ensemble, as text.
pub const CONFIG: &str = "/zookeeper/config";

/// Whether a znode may have this path.
///
// Compat: PathUtils.validatePath - judges UTF-16 units, so every character beyond the basic plane
// is refused as a surrogate.
pub fn is_valid(path: &str) -> bool {
    let Some(names) = path.strip_prefix('/') else {
        return false;
    };
    if names.is_empty() {
        return true;
    }
    // Each byte is looked at once: nearly all paths are of characters that need no second look.
    let (mut begin, mut is_plain) = (0, true);
    for (at, byte) in names.bytes().enumerate() {
        if byte == b'/' {
            if !is_name(&names[begin..at]) {
                return false;
            }
            begin = at + 1;
        }
        is_plain &= matches!(byte, b' '..=b'~');
    }
    is_name(&names[begin..]) && (is_plain || names.chars().all(is_allowed))
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
}

/// Where the last name of a path begins: its slash. Names are short, so this looks byte by byte.
pub fn last_slash(path: &str) -> Option<usize> {
    path.bytes().rposition(|byte| byte == b'/')
}

/// Appends the number of a sequential znode: ten characters at least, a sign among them.
pub fn push_sequence(path: &mut String, number: i32) {
    write!(path, "{number:010}").expect("a string takes everything");
}

/// The path up to the last slash, `""` for what is directly below the root; none without a slash.
pub fn parent(path: &str) -> Option<&str> {
    last_slash(path).map(|slash| &path[..slash])
}

/// Whether clients may not delete this path.
pub fn is_special(path: &str) -> bool {
    matches!(path, ROOT | ZOOKEEPER | QUOTA | CONFIG)
}

fn is_allowed(c: char) -> bool {
    !matches!(
        c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{10ffff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_and_odd_but_legal_paths_are_valid() {
        for path in ["/", "/a", "/a/b.c", "/.foo", "/f..", "/...", "/a b", "/\u{e9}\u{4e2d}"] {
            assert!(is_valid(path), "{path}");
        }
    }

    #[test]
    fn paths_that_zookeeper_refuses_are_not_valid() {
        let bad = ["", "a", "a/b", "//", "/a/", "/a//b", "/.", "/a/./b", "/..", "/a/.."];
        let bad_characters = ["/\0", "/\u{1f}", "/\u{7f}", "/\u{9f}", "/\u{e000}", "/\u{fffd}"];
        for path in bad.into_iter().chain(bad_characters).chain(["/\u{1f600}"]) {
            assert!(!is_valid(path), "{path:?}");
        }
    }

    #[test]
    fn the_number_of_a_sequential_znode_can_overflow() {
        let numbered = |number| {
            let mut path = String::from("/s");
            push_sequence(&mut path, number);
            path
        };
        assert_eq!(numbered(7), "/s0000000007");
        assert_eq!(numbered(i32::MAX), "/s2147483647");
        assert_eq!(numbered(i32::MIN), "/s-2147483648");
        assert_eq!(numbered(-5), "/s-000000005");
    }

    #[test]
    fn the_parent_ends_at_the_last_slash() {
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a"), Some(""));
        assert_eq!(parent("a"), None);
    }
}
