//! What a client's ACL list becomes before it is stored.

use std::collections::BTreeSet;

use super::ip;
use crate::acl::{Acl, AclBytes, AclEntry, Id};
use crate::error_code::ErrorCode;
use crate::jute::reader::text;
use crate::rules::Rules;

/// Checks a list that a client wants to set, drops what it says twice, and replaces `auth` by the
/// ids that the connection has authenticated as. A list that needs none of this stays as it is.
///
// Compat: PrepRequestProcessor.fixupACL - empty lists, unknown schemes, ids that their scheme
// refuses and `auth` of a connection without authentication are InvalidACL. A null id is a
// NullPointerException there, so a marshalling error.
pub fn fixup<'a>(rules: &Rules, ids: &[Id], acl: AclBytes<'a>) -> Result<AclBytes<'a>, ErrorCode> {
    if acl.is_open() {
        return Ok(acl);
    }
    check_nulls(&acl)?;
    let mut count = 0;
    let mut changes = false;
    for entry in acl.entries() {
        count += 1;
        changes |= judge(rules, ids, entry)?;
    }
    match count {
        0 => Err(ErrorCode::InvalidAcl),
        1 if !changes => Ok(acl),
        _ if !changes && count <= PAIRWISE_MAX && !has_duplicates(&acl) => Ok(acl),
        _ => rebuild(rules, ids, &acl),
    }
}

/// Longest list in which each entry is compared with each.
const PAIRWISE_MAX: usize = 16;

/// Fails where ZooKeeper's look for duplicates does, which is before anything else.
///
// Compat: ACL.equals and Id.equals, which ask the later of two entries: first for its permissions,
// then its scheme, then its id. It must not be null when its turn comes.
fn check_nulls(acl: &AclBytes<'_>) -> Result<(), ErrorCode> {
    if acl.entries().all(|entry| entry.scheme.is_some() && entry.id.is_some()) {
        return Ok(());
    }
    let mut perms_seen = BTreeSet::new();
    let mut schemes_seen = BTreeSet::new();
    for AclEntry { perms, scheme, id } in acl.entries() {
        let fails = match (scheme, id) {
            (None, _) => perms_seen.contains(&perms),
            (Some(_), None) => schemes_seen.contains(&(perms, scheme)),
            (Some(_), Some(_)) => false,
        };
        if fails {
            return Err(ErrorCode::MarshallingError);
        }
        perms_seen.insert(perms);
        schemes_seen.insert((perms, scheme));
    }
    Ok(())
}

/// Whether the scheme accepts the entry; if so, whether the list can't stay as it is.
fn judge(rules: &Rules, ids: &[Id], entry: AclEntry<'_>) -> Result<bool, ErrorCode> {
    let Some(scheme) = entry.scheme else {
        return Err(ErrorCode::InvalidAcl);
    };
    if scheme == b"auth" {
        let valid = ids.iter().any(|id| is_authenticated(rules, id));
        return if valid { Ok(true) } else { Err(ErrorCode::InvalidAcl) };
    }
    let has_ids = match scheme {
        b"world" | b"ip" => true,
        b"digest" => rules.digest_scheme,
        _ => false,
    };
    let id = match entry.id {
        _ if !has_ids => return Err(ErrorCode::InvalidAcl),
        Some(id) => text(id),
        None => return Err(ErrorCode::MarshallingError),
    };
    let valid = match scheme {
        b"world" => id == "anyone",
        b"ip" => ip::Network::parse(&id).is_some(),
        _ => is_digest_id(&id),
    };
    let replaced = matches!(id, std::borrow::Cow::Owned(_));
    if valid { Ok(replaced) } else { Err(ErrorCode::InvalidAcl) }
}

/// Whether the id says who the client is, not only where it is.
fn is_authenticated(rules: &Rules, id: &Id) -> bool {
    rules.digest_scheme && id.scheme == "digest"
}

/// Two parts between colons; empty ones at the end don't count.
fn is_digest_id(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}

fn has_duplicates(acl: &AclBytes<'_>) -> bool {
    let entries = acl.entries();
    let mut rest = entries.clone();
    entries.into_iter().any(|entry| {
        rest.next();
        rest.clone().any(|other| other == entry)
    })
}

/// A few bytes of `auth`, each with other permissions, can stand for many ids many times: the
/// result is bounded by what a transaction can hold.
fn rebuild(rules: &Rules, ids: &[Id], acl: &AclBytes<'_>) -> Result<AclBytes<'static>, ErrorCode> {
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    let mut bytes = 0;
    let mut push = |perms: i32, id: Id| {
        bytes += 12 + id.scheme.len() + id.id.len();
        list.push(Acl { perms, id });
        if bytes <= rules.packet_bytes_max { Ok(()) } else { Err(ErrorCode::InvalidAcl) }
    };
    for entry in acl.entries().filter(|&entry| seen.insert(entry)) {
        if entry.scheme == Some(b"auth") {
            for id in ids.iter().filter(|id| is_authenticated(rules, id)) {
                push(entry.perms, id.clone())?;
            }
        } else {
            let part = |bytes: Option<&[u8]>| text(bytes.unwrap_or_default()).into_owned();
            push(entry.perms, Id { scheme: part(entry.scheme), id: part(entry.id) })?;
        }
    }
    Ok(AclBytes::encode(&list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{ALL, READ};
    use crate::jute::{Reader, Writer};

    fn acl(entries: &[(i32, &str, &str)]) -> AclBytes<'static> {
        let list: Vec<_> = entries
            .iter()
            .map(|&(perms, scheme, id)| Acl { perms, id: Id::new(scheme, id) })
            .collect();
        AclBytes::encode(&list)
    }

    fn user() -> [Id; 3] {
        [Id::new("ip", "127.0.0.1"), Id::new("digest", "u:h"), Id::new("super", "")]
    }

    #[track_caller]
    fn check(entries: &[(i32, &str, &str)], expect: Result<&[(i32, &str, &str)], ErrorCode>) {
        let found = fixup(&Rules::default(), &user(), acl(entries));
        assert_eq!(found, expect.map(acl), "{entries:?}");
    }

    #[test]
    fn a_good_list_stays_as_it_is() {
        for list in [
            [(ALL, "world", "anyone")].as_slice(),
            &[(READ, "world", "anyone"), (READ, "ip", "10.0.0.0/8"), (ALL, "digest", "u:h")],
            &[(ALL, "digest", ":h"), (ALL, "digest", "a:b::")],
        ] {
            check(list, Ok(list));
        }
    }

    #[test]
    fn auth_becomes_the_ids_that_authenticated() {
        check(&[(READ, "auth", "whatever")], Ok(&[(READ, "digest", "u:h")]));
        let both = [(READ, "auth", ""), (ALL, "world", "anyone"), (2, "auth", "")];
        check(&both, Ok(&[(1, "digest", "u:h"), (ALL, "world", "anyone"), (2, "digest", "u:h")]));
        let nobody = fixup(&Rules::default(), &user()[..1], acl(&[(READ, "auth", "")]));
        assert_eq!(nobody, Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn what_is_said_twice_is_stored_once() {
        let (a, b) = ((1, "ip", "::1"), (2, "ip", "::1"));
        check(&[a, b, a, b, a], Ok(&[a, b]));
        let many: Vec<_> = (0..100).map(|perms| (perms % 50, "ip", "::1")).collect();
        check(&many, Ok(&many[..50]));
    }

    #[test]
    fn what_no_scheme_accepts_is_invalid() {
        check(&[], Err(ErrorCode::InvalidAcl));
        for (scheme, id) in [
            ("world", "someone"),
            ("sasl", "u"),
            ("x509", "CN=u"),
            ("super", ""),
            ("", ""),
            ("digest", "u"),
            ("digest", "u:"),
            ("digest", "u:h:i"),
            ("ip", "1.2.3"),
        ] {
            check(&[(ALL, "world", "anyone"), (1, scheme, id)], Err(ErrorCode::InvalidAcl));
        }
    }

    #[test]
    fn null_strings_and_broken_ones() {
        type Part = Option<&'static [u8]>;
        let fix_list = |list: &[(i32, Part, Part)]| {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            writer.count(list.len());
            for &(perms, scheme, id) in list {
                writer.i32(perms);
                writer.buf_or_null(scheme);
                writer.buf_or_null(id);
            }
            let acl = AclBytes::read(&mut Reader::new(&out)).unwrap().into_owned();
            fixup(&Rules::default(), &user(), acl)
        };
        let fix = |scheme, id| fix_list(&[(READ, scheme, id)]);
        assert_eq!(fix(None, None), Err(ErrorCode::InvalidAcl));
        assert_eq!(fix(Some(b"sasl"), None), Err(ErrorCode::InvalidAcl));
        assert_eq!(fix(Some(b"world"), None), Err(ErrorCode::MarshallingError));
        let (ip, auth): (Part, Part) = (Some(b"ip"), Some(b"auth"));
        let clash = |first, second| fix_list(&[first, second]).unwrap_err();
        assert_eq!(clash((1, auth, auth), (1, None, ip)), ErrorCode::MarshallingError);
        assert_eq!(clash((1, auth, auth), (2, None, ip)), ErrorCode::InvalidAcl);
        assert_eq!(clash((1, None, auth), (1, auth, ip)), ErrorCode::InvalidAcl);
        assert_eq!(clash((1, auth, auth), (1, auth, None)), ErrorCode::MarshallingError);
        let replaced = acl(&[(READ, "digest", "u:\u{fffd}")]);
        assert_eq!(fix(Some(b"digest"), Some(b"u:\xff")), Ok(replaced));
    }

    #[test]
    fn a_list_cannot_grow_without_bound() {
        let ids: Vec<_> = (0..100).map(|n| Id::new("digest", format!("u{n}:h"))).collect();
        let auths: Vec<_> = (0..20_000).map(|perms| (perms, "auth", "")).collect();
        let found = fixup(&Rules::default(), &ids, acl(&auths));
        assert_eq!(found, Err(ErrorCode::InvalidAcl));
    }
}
