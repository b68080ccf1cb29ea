//! Who may do what: the ids of a connection against the ACL list of a znode.
//!
//! Which ids a connection has is decided where it authenticates; here they are only compared.

pub mod fixup;
pub mod ip;

use std::cell::{Cell, RefCell};

use crate::acl::{ALL, Acl, AclBytes, Id};
use crate::btree::View;
use crate::collections::FastMap;
use crate::rules::Rules;
use crate::tree::{self, AclId};

pub use fixup::fixup;

/// A list of so many bytes is long: it is gone through once for a request.
const LONG_BYTES: usize = 1024;

/// What one request has found out about long lists: it may name very many znodes, and a list may
/// be as long as a packet.
#[derive(Debug, Default)]
pub struct Verdicts {
    granted: RefCell<FastMap<AclId, i32>>,
    spent: Cell<usize>,
}

impl Verdicts {
    /// Whether a connection with these ids may do one of `perms` to a znode with this list.
    pub fn may(&self, view: &impl View, rules: &Rules, acl: AclId, perms: i32, ids: &[Id]) -> bool {
        if acl == AclId::OPEN || rules.skip_acl {
            return true;
        }
        if let Some(granted) = self.granted.borrow().get(&acl) {
            return granted & perms != 0;
        }
        let list = tree::acl(view, acl);
        let bytes = list.as_bytes().len();
        if bytes < LONG_BYTES {
            return allows(rules, &list, perms, ids);
        }
        self.spend(bytes);
        let granted = granted(rules, &list, ALL, ids);
        self.granted.borrow_mut().insert(acl, granted);
        granted & perms != 0
    }

    /// Counts bytes that were gone through, or made, and do not show in the answer.
    pub fn spend(&self, bytes: usize) {
        self.spent.set(self.spent.get() + bytes);
    }

    /// How many there were.
    pub fn spent(&self) -> usize {
        self.spent.get()
    }
}

/// Whether a connection with these ids may do one of `perms` under this list.
pub fn allows(rules: &Rules, acl: &AclBytes<'_>, perms: i32, ids: &[Id]) -> bool {
    granted(rules, acl, perms, ids) != 0
}

/// Which of `perms` a connection with these ids has under this list.
///
// Compat: ZooKeeperServer.checkACL - an empty list is open; an entry of a scheme that the server
// does not have matches nobody.
fn granted(rules: &Rules, acl: &AclBytes<'_>, perms: i32, ids: &[Id]) -> i32 {
    if rules.skip_acl || acl.is_open() || ids.iter().any(|id| id.scheme == "super") {
        return perms;
    }
    let of_scheme = |scheme: &'static str| ids.iter().filter(move |id| id.scheme == scheme);
    let digests = || of_scheme("digest").map(|id| id.id.as_bytes());
    let is_long = acl.as_bytes().len() >= LONG_BYTES;
    let mut sorted: Vec<&[u8]> = if is_long { digests().collect() } else { Vec::new() };
    sorted.sort_unstable();
    let has_digest = |id: &[u8]| {
        if is_long { sorted.binary_search(&id).is_ok() } else { digests().any(|own| own == id) }
    };
    let (mut empty, mut granted) = (true, 0);
    for entry in acl.entries() {
        empty = false;
        let (Some(scheme), Some(expression)) = (entry.scheme, entry.id) else {
            continue;
        };
        let new = entry.perms & perms & !granted;
        if new == 0 {
            continue;
        }
        let matches = match scheme {
            b"world" => expression == b"anyone",
            b"ip" => {
                let network = str::from_utf8(expression).ok().and_then(ip::Network::parse);
                network.is_some_and(|network| of_scheme("ip").any(|id| network.has(&id.id)))
            }
            b"digest" => rules.digest_scheme && has_digest(expression),
            _ => false,
        };
        if matches {
            granted |= new;
            if granted == perms {
                break;
            }
        }
    }
    if empty { perms } else { granted }
}

/// The list as those see it who may read it but not administrate: the hashes of passwords are
/// replaced by x.
///
// Compat: FinalRequestProcessor, getACL - replaceAll(":.*", ":x"), where a dot is no line end.
pub fn masked(acl: &AclBytes<'_>) -> AclBytes<'static> {
    let mut list = acl.decode();
    for Acl { id, .. } in &mut list {
        if id.scheme == "digest" {
            id.id = mask_hash(&id.id);
        }
    }
    AclBytes::encode(&list)
}

fn mask_hash(id: &str) -> String {
    let mut masked = String::with_capacity(id.len());
    let mut rest = id;
    while let Some((user, hash)) = rest.split_once(':') {
        masked.push_str(user);
        masked.push_str(":x");
        let line_end = hash.find(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        rest = line_end.map_or("", |at| &hash[at..]);
    }
    masked + rest
}

/// The user that an id is of, as whoAmI tells it; empty for schemes that have none.
///
// Compat: AuthUtil.getUser
pub fn user_name<'a>(rules: &Rules, id: &'a Id) -> &'a str {
    match id.scheme.as_str() {
        "ip" => &id.id,
        "digest" if rules.digest_scheme => id.id.split(':').next().unwrap_or_default(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{ADMIN, READ, WRITE};
    use crate::prep::script::Script;

    fn acl(entries: &[(i32, &str, &str)]) -> AclBytes<'static> {
        let list: Vec<_> = entries
            .iter()
            .map(|&(perms, scheme, id)| Acl { perms, id: Id::new(scheme, id) })
            .collect();
        AclBytes::encode(&list)
    }

    #[track_caller]
    fn check(entries: &[(i32, &str, &str)], ids: &[(&str, &str)], perms: i32, expect: bool) {
        let ids: Vec<_> = ids.iter().map(|&(scheme, id)| Id::new(scheme, id)).collect();
        let found = allows(&Rules::default(), &acl(entries), perms, &ids);
        assert_eq!(found, expect, "{entries:?} {ids:?} {perms}");
    }

    #[test]
    fn the_world_and_an_empty_list_are_for_everybody() {
        check(&[], &[], ALL, true);
        check(&[(ALL, "world", "anyone")], &[], ADMIN, true);
        check(&[(READ, "world", "anyone")], &[], READ, true);
        check(&[(READ, "world", "anyone")], &[], WRITE, false);
        check(&[(READ, "world", "anyone")], &[], READ | WRITE, true);
        check(&[(ALL, "world", "someone")], &[("world", "someone")], READ, false);
    }

    #[test]
    fn ids_match_within_their_scheme() {
        let list = [(READ, "digest", "u:h"), (WRITE, "ip", "10.0.0.0/8")];
        check(&list, &[("digest", "u:h")], READ, true);
        check(&list, &[("digest", "u:h")], WRITE, false);
        check(&list, &[("digest", "v:h"), ("ip", "10.1.2.3")], WRITE, true);
        check(&list, &[("ip", "11.1.2.3")], WRITE, false);
        check(&list, &[("ip", "u:h")], READ, false);
        check(&[(READ, "x509", "CN=a")], &[("x509", "CN=a")], READ, false);
    }

    #[test]
    fn super_and_skip_acl_may_everything() {
        check(&[(READ, "digest", "u:h")], &[("super", "")], ADMIN, true);
        let rules = Rules { skip_acl: true, ..Rules::default() };
        assert!(allows(&rules, &acl(&[(READ, "digest", "u:h")]), ADMIN, &[]));
    }

    #[test]
    fn a_request_goes_through_a_long_list_once() {
        let entries = (0..50).map(|user| format!("4/digest/user{user}:hash"));
        let list = entries.chain(["1/ip/10.0.0.1".to_owned()]).collect::<Vec<_>>().join(",");
        let mut script = Script::new();
        script.check(&[(&format!("create /a acl={list}"), "/a")]);
        let (view, rules) = (script.tree.view(), Rules::default());
        let acl = tree::znode(view, "/a").unwrap().acl();
        let verdicts = Verdicts::default();
        let ids = [Id::new("digest", "user49:hash"), Id::new("ip", "10.0.0.1")];
        for (perms, expect) in [(WRITE, false), (READ, true), (4, true), (ADMIN, false)] {
            assert_eq!(verdicts.may(view, &rules, acl, perms, &ids), expect, "{perms}");
            let list = tree::acl(view, acl);
            assert_eq!(allows(&rules, &list, perms, &ids), expect, "{perms}");
        }
        assert_eq!(verdicts.spent(), tree::acl(view, acl).as_bytes().len());
    }

    #[test]
    fn a_scheme_that_is_switched_off_matches_nobody() {
        let rules = Rules { digest_scheme: false, ..Rules::default() };
        let ids = [Id::new("digest", "u:h")];
        assert!(!allows(&rules, &acl(&[(READ, "digest", "u:h")]), READ, &ids));
        assert_eq!(user_name(&rules, &ids[0]), "");
        assert_eq!(user_name(&Rules::default(), &ids[0]), "u");
    }

    #[test]
    fn the_mask_hides_hashes_only() {
        let masked = masked(&acl(&[(1, "digest", "u:h=:i"), (2, "ip", "::1"), (4, "digest", "v")]));
        assert_eq!(masked, acl(&[(1, "digest", "u:x"), (2, "ip", "::1"), (4, "digest", "v")]));
        assert_eq!(mask_hash("a:b\nc:d"), "a:x\nc:x");
        assert_eq!(mask_hash(":"), ":x");
    }
}
