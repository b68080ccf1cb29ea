//! Authentication: which ids a connection has, and whether they are enough to be served.
//!
//! Everything here is a function of the configuration ([`AuthRules`]), the peer's address and the
//! bytes of an auth packet. Whether an id satisfies an ACL is decided elsewhere. A connection has
//! the `ip` id of its peer from the start ([`ip::id_of`]); `world:anyone` is everybody's and is
//! never listed.
//!
//! A scheme that is not configured is unknown: its packets fail and the connection is closed.
//! `x509` and `sasl` are such schemes here, as on a ZooKeeper without TLS and without JAAS. (A
//! SASL *request*, opcode 102, is another thing: such a server answers it with error 0 and a null
//! token, whatever was sent. Compat: ZooKeeperServer.processSasl)

pub mod digest;
pub mod enforce;
pub mod identities;
pub mod ip;

use core::net::SocketAddr;

pub use digest::{DigestAlgorithm, DigestRules};
pub use enforce::Enforcement;

use crate::acl::Id;

/// The scheme of ids that may do everything.
pub const SUPER_SCHEME: &str = "super";

/// What the configuration says about authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRules {
    /// The digest scheme; `None` where `DigestAuthenticationProvider.enabled` is false.
    pub digest: Option<DigestRules>,
    /// The ensemble scheme; `None` unless its provider is configured.
    pub ensemble: Option<EnsembleRules>,
    /// Which schemes a connection must have authenticated with before it is served.
    pub enforcement: Enforcement,
}

/// The ensemble scheme: a client says which ensemble it means to talk to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleRules {
    /// The names that are ours (`ensembleAuthName`); `None`: any name will do.
    pub names: Option<Vec<String>>,
}

/// What an auth packet leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// The connection gets these ids (perhaps none, perhaps some it has already). Reply: ok.
    Added(Vec<Id>),
    /// Reply [`ErrorCode::AuthFailed`](crate::error_code::ErrorCode::AuthFailed), then close.
    Failed,
    /// Close without a reply, so that the client goes to another server.
    WrongEnsemble,
}

impl Default for AuthRules {
    /// As a ZooKeeper without any configuration: ip and digest.
    fn default() -> Self {
        Self {
            digest: Some(DigestRules::default()),
            ensemble: None,
            enforcement: Enforcement::none(),
        }
    }
}

impl EnsembleRules {
    /// The rules for the value of `ensembleAuthName`: names separated by commas.
    // Compat: EnsembleAuthenticationProvider.setEnsembleNames
    pub fn from_setting(names: &str) -> Self {
        Self { names: Some(names.split(',').map(|name| name.trim().to_owned()).collect()) }
    }

    // Compat: EnsembleAuthenticationProvider.handleAuthentication
    fn authenticate(&self, name: Option<&[u8]>) -> AuthOutcome {
        let (Some(ours), Some(name)) = (&self.names, name.filter(|name| !name.is_empty())) else {
            return AuthOutcome::Added(Vec::new());
        };
        let name = String::from_utf8_lossy(name);
        if ours.iter().any(|our| *our == name) {
            AuthOutcome::Added(Vec::new())
        } else {
            AuthOutcome::WrongEnsemble
        }
    }
}

impl AuthRules {
    /// Whether a client can authenticate with `scheme` here.
    pub fn offers(&self, scheme: &str) -> bool {
        match scheme {
            "ip" => true,
            "digest" => self.digest.is_some(),
            "ensemble" => self.ensemble.is_some(),
            _ => false,
        }
    }

    /// Handles an auth packet of a connection from `peer`. Null fields come as `None`.
    // Compat: ZooKeeperServer.processPacket, the branch of OpCode.auth
    pub fn authenticate(
        &self,
        peer: SocketAddr,
        scheme: Option<&str>,
        auth: Option<&[u8]>,
    ) -> AuthOutcome {
        match (scheme, &self.digest, &self.ensemble) {
            (Some("ip"), ..) => AuthOutcome::Added(vec![ip::id_of(peer)]),
            (Some("digest"), Some(digest), _) => match auth {
                Some(auth) => AuthOutcome::Added(digest.authenticate(auth)),
                None => AuthOutcome::Failed,
            },
            (Some("ensemble"), _, Some(ensemble)) => ensemble.authenticate(auth),
            _ => AuthOutcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &AuthRules, scheme: Option<&str>, auth: Option<&[u8]>, expected: AuthOutcome) {
        let peer = "10.1.2.3:4000".parse().unwrap();
        assert_eq!(rules.authenticate(peer, scheme, auth), expected);
        if expected != AuthOutcome::Failed {
            assert!(rules.offers(scheme.unwrap()));
        }
    }

    fn added(ids: &[(&str, &str)]) -> AuthOutcome {
        AuthOutcome::Added(ids.iter().map(|&(scheme, id)| Id::new(scheme, id)).collect())
    }

    #[test]
    fn digest_adds_the_id_and_ip_the_address() {
        let rules = AuthRules::default();
        let id = added(&[("digest", "user:smGaoVKd/cQkjm7b88GyorAUz20=")]);
        check(&rules, Some("digest"), Some(b"user:pass"), id);
        check(&rules, Some("ip"), None, added(&[("ip", "10.1.2.3")]));
    }

    #[test]
    fn unknown_and_null_schemes_fail() {
        let rules = AuthRules::default();
        for scheme in ["world", "x509", "sasl", "ensemble", "auth", "super", "Digest", ""] {
            check(&rules, Some(scheme), Some(b"user:pass"), AuthOutcome::Failed);
            assert!(!rules.offers(scheme));
        }
        check(&rules, None, Some(b"user:pass"), AuthOutcome::Failed);
        check(&rules, Some("digest"), None, AuthOutcome::Failed);
    }

    #[test]
    fn digest_can_be_switched_off() {
        let rules = AuthRules { digest: None, ..AuthRules::default() };
        check(&rules, Some("digest"), Some(b"user:pass"), AuthOutcome::Failed);
        assert!(!rules.offers("digest"));
    }

    #[test]
    fn the_wrong_ensemble_is_closed_and_any_other_adds_nothing() {
        let named = |names| AuthRules { ensemble: Some(names), ..AuthRules::default() };
        let ours = named(EnsembleRules::from_setting("one, two"));
        check(&ours, Some("ensemble"), Some(b"two"), added(&[]));
        check(&ours, Some("ensemble"), Some(b""), added(&[]));
        check(&ours, Some("ensemble"), None, added(&[]));
        check(&ours, Some("ensemble"), Some(b"three"), AuthOutcome::WrongEnsemble);
        check(&named(EnsembleRules::default()), Some("ensemble"), Some(b"three"), added(&[]));
    }
}
