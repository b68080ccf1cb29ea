//! Enforced authentication: connections that have not authenticated with one of the configured
//! schemes are told so and closed, at their first request that is neither auth nor SASL.
//!
//! The reply then is [`ErrorCode::SessionClosedRequireAuth`] with zxid 0 and the request's xid.
//!
//! [`ErrorCode::SessionClosedRequireAuth`]: crate::error_code::ErrorCode::SessionClosedRequireAuth

use crate::acl::Id;

/// Which schemes a connection must have authenticated with; any one of them is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement(Option<Vec<String>>);

impl Enforcement {
    /// Nothing is enforced.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What the settings `sessionRequireClientSASLAuth`, `enforce.auth.enabled` and
    /// `enforce.auth.schemes` say. Whether the schemes are offered is for the caller to check.
    // Compat: AuthenticationHelper.initConfigurations, where required SASL overrules the others.
    pub fn from_settings(sasl_required: bool, enabled: bool, schemes: &str) -> Self {
        if sasl_required {
            return Self(Some(vec!["sasl".to_owned()]));
        }
        let names = schemes.split(',').map(str::trim).filter(|name| !name.is_empty());
        Self(enabled.then(|| names.map(str::to_owned).collect()))
    }

    /// The schemes of which one is needed; `None` where nothing is enforced.
    pub fn schemes(&self) -> Option<&[String]> {
        self.0.as_deref()
    }

    /// Whether a connection with `ids` is served.
    // Compat: AuthenticationHelper.isCnxnAuthenticated
    pub fn admits(&self, ids: &[Id]) -> bool {
        match &self.0 {
            None => true,
            Some(schemes) => ids.iter().any(|id| schemes.contains(&id.scheme)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(enforcement: &Enforcement, schemes: &[&str], admitted: bool) {
        let ids: Vec<Id> = schemes.iter().map(|&scheme| Id::new(scheme, "x")).collect();
        assert_eq!(enforcement.admits(&ids), admitted);
    }

    #[test]
    fn without_enforcement_everybody_is_served() {
        check(&Enforcement::none(), &["ip"], true);
        check(&Enforcement::from_settings(false, false, "digest"), &["ip"], true);
    }

    #[test]
    fn one_of_the_schemes_is_enough() {
        let enforcement = Enforcement::from_settings(false, true, "x509, digest");
        check(&enforcement, &["ip"], false);
        check(&enforcement, &["ip", "digest"], true);
        assert_eq!(enforcement.schemes().unwrap(), ["x509", "digest"]);
    }

    #[test]
    fn the_address_can_be_a_scheme_that_counts() {
        check(&Enforcement::from_settings(false, true, "ip"), &["ip"], true);
    }

    #[test]
    fn required_sasl_overrules_the_list() {
        let enforcement = Enforcement::from_settings(true, true, "digest");
        check(&enforcement, &["digest"], false);
        check(&enforcement, &["sasl"], true);
    }
}
