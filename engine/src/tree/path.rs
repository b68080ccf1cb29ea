//! Paths as the tree takes them: any text that a transaction may have in a path's place.

use crate::path;

/// The form that keys and digests use: the root is empty.
pub(super) fn canonical(path: &str) -> &str {
    if path == "/" { "" } else { path }
}

/// Splits where a child hangs on its parent: canonical path of the parent, and name.
///
/// None of the paths that are not valid may break the tree: those of them that could otherwise
/// hang on the wrong parent are not split.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    let slash = path::last_slash(path)?;
    let (parent, name) = (&path[..slash], &path[slash + 1..]);
    if parent == "/" || (parent.is_empty() && name.is_empty()) {
        return None;
    }
    Some((parent, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hangs_on_a_parent_is_split() {
        assert_eq!(split("/a"), Some(("", "a")));
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        for path in ["", "/", "a", "//a"] {
            assert_eq!(split(path), None, "{path:?}");
        }
    }
}
