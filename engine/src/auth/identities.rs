//! The identities of a connection: what each auth packet adds, within bounds.
//!
//! Requests under way keep the list as it was when they came, so that each change makes a new one.

use std::sync::Arc;

use crate::acl::Id;

/// The most identities that a connection may have. All of them go with every request that is
/// forwarded to a leader, which takes more than these, but not any number.
pub const IDENTITIES_MAX: usize = 256;

/// The most bytes that they may have together.
pub const IDENTITIES_BYTES_MAX: usize = 64 << 10;

/// Adds identities to those that there are, without those that are there already. False if they
/// would be too many or too long: then nothing is added.
pub fn add(ids: &mut Arc<[Id]>, added: &[Id]) -> bool {
    let mut new: Vec<&Id> = Vec::new();
    for id in added {
        if !ids.contains(id) && !new.contains(&id) {
            new.push(id);
        }
    }
    if new.is_empty() {
        return true;
    }
    let all = || ids.iter().chain(new.iter().copied());
    let bytes: usize = all().map(|id| id.scheme.len() + id.id.len()).sum();
    if ids.len() + new.len() > IDENTITIES_MAX || bytes > IDENTITIES_BYTES_MAX {
        return false;
    }
    *ids = all().cloned().collect();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> Vec<Id> {
        vec![Id::new("digest", format!("u{number}:hash"))]
    }

    #[test]
    fn one_that_is_there_changes_nothing() {
        let mut ids: Arc<[Id]> = Arc::new([]);
        assert!(add(&mut ids, &user(1)));
        assert!(add(&mut ids, &[user(2), user(2)].concat()));
        let before = Arc::clone(&ids);
        assert!(add(&mut ids, &user(1)));
        assert!(Arc::ptr_eq(&before, &ids));
        assert_eq!(ids[..], [user(1), user(2)].concat());
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let mut ids: Arc<[Id]> = Arc::new([]);
        for number in 0..IDENTITIES_MAX {
            assert!(add(&mut ids, &user(number)));
        }
        assert!(!add(&mut ids, &user(IDENTITIES_MAX)));
        assert_eq!(ids.len(), IDENTITIES_MAX);
        // What it has, it may say again.
        assert!(add(&mut ids, &user(0)));
    }

    #[test]
    fn they_are_so_long_and_no_longer() {
        let long = |bytes| vec![Id::new("digest", "x".repeat(bytes - "digest".len()))];
        let mut ids: Arc<[Id]> = Arc::new([]);
        assert!(!add(&mut ids, &long(IDENTITIES_BYTES_MAX + 1)));
        assert!(add(&mut ids, &long(IDENTITIES_BYTES_MAX)));
        assert!(!add(&mut ids, &user(1)));
        assert_eq!(ids.len(), 1);
    }
}
