//! The digest scheme: who knows `user:password` has the id `user:base64(hash("user:password"))`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};

use super::SUPER_SCHEME;
use crate::acl::Id;

/// The configuration of the scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestRules {
    /// The hash (`DigestAuthenticationProvider.digestAlg`).
    pub algorithm: DigestAlgorithm,
    /// The id whose owner may do everything (`DigestAuthenticationProvider.superDigest`).
    pub super_digest: Option<String>,
}

/// A hash of the digest scheme. All servers of an ensemble must use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// ZooKeeper's default.
    #[default]
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA-512/224.
    Sha512Slash224,
    /// SHA-512/256.
    Sha512Slash256,
}

impl DigestAlgorithm {
    /// The names that a configuration may use, as a reader of an error message wants them.
    pub const NAMES: &str = "SHA1, SHA-224, SHA-256, SHA-384, SHA-512, SHA-512/224, SHA-512/256";

    /// The algorithm that Java calls `name`. Case does not matter, as there.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "SHA" | "SHA1" | "SHA-1" => Some(Self::Sha1),
            "SHA224" | "SHA-224" => Some(Self::Sha224),
            "SHA256" | "SHA-256" => Some(Self::Sha256),
            "SHA384" | "SHA-384" => Some(Self::Sha384),
            "SHA512" | "SHA-512" => Some(Self::Sha512),
            "SHA512/224" | "SHA-512/224" => Some(Self::Sha512Slash224),
            "SHA512/256" | "SHA-512/256" => Some(Self::Sha512Slash256),
            _ => None,
        }
    }

    /// The id of who knows `user_password`. Text without a colon is a user without a password.
    // Compat: DigestAuthenticationProvider.generateDigest
    pub fn id_text(self, user_password: &str) -> String {
        let user = user_password.split(':').next().unwrap_or_default();
        let bytes = user_password.as_bytes();
        let hash = match self {
            Self::Sha1 => STANDARD.encode(Sha1::digest(bytes)),
            Self::Sha224 => STANDARD.encode(Sha224::digest(bytes)),
            Self::Sha256 => STANDARD.encode(Sha256::digest(bytes)),
            Self::Sha384 => STANDARD.encode(Sha384::digest(bytes)),
            Self::Sha512 => STANDARD.encode(Sha512::digest(bytes)),
            Self::Sha512Slash224 => STANDARD.encode(Sha512_224::digest(bytes)),
            Self::Sha512Slash256 => STANDARD.encode(Sha512_256::digest(bytes)),
        };
        format!("{user}:{hash}")
    }
}

impl DigestRules {
    /// The ids of who shows `auth`: the super id first, if it is the super digest, and the digest
    /// id. It never fails, since anybody may be the first to use a name.
    // Compat: DigestAuthenticationProvider.handleAuthentication
    pub fn authenticate(&self, auth: &[u8]) -> Vec<Id> {
        let id = self.algorithm.id_text(&String::from_utf8_lossy(auth));
        let is_super = self.super_digest.as_ref().is_some_and(|digest| *digest == id);
        let super_id = is_super.then(|| Id::new(SUPER_SCHEME, ""));
        super_id.into_iter().chain([Id::new("digest", id)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(algorithm: &str, user_password: &str, expected: &str) {
        let algorithm = DigestAlgorithm::from_name(algorithm).unwrap();
        assert_eq!(algorithm.id_text(user_password), expected);
    }

    #[test]
    fn ids_are_those_of_zookeeper() {
        // Computed with a JVM's MessageDigest and Base64.
        check("SHA1", "super:test", "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        check("sha-256", "user:pass", "user:70yRTFkWmLJo2zxkFj6v2nIJpjDyNuvw7r8EVGDfcjo=");
        check("SHA-512/224", "a:b:c", "a:s33jwCucYoPZCbKDdFabk1JJl31LFGNREkeNpA==");
    }

    #[test]
    fn text_without_a_colon_is_a_user_without_a_password() {
        check("SHA", "nopassword", "nopassword:0Ybo2sSKJNARW1aNCrLJ6Lguats=");
        check("SHA", "", ":2jmj7l5rSw0yVb/vlWAYkK/YBwk=");
        check("SHA", ":", ":BaefBs8/Z/cm2uaNGKIpD2yaUMk=");
    }

    #[test]
    fn each_algorithm_has_its_length() {
        for name in DigestAlgorithm::NAMES.split(", ") {
            let algorithm = DigestAlgorithm::from_name(name).unwrap();
            let bits = name.rsplit(['-', '/']).next().unwrap().parse().unwrap_or(160);
            let text = algorithm.id_text("u:p");
            let hash = STANDARD.decode(text.strip_prefix("u:").unwrap()).unwrap();
            assert_eq!(hash.len() * 8, bits, "{name}");
        }
        assert_eq!(DigestAlgorithm::from_name("RipeMD160"), None);
    }

    #[test]
    fn the_super_digest_adds_the_super_id() {
        let super_digest = Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".to_owned());
        let rules = DigestRules { super_digest, ..DigestRules::default() };
        let digest = Id::new("digest", "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        assert_eq!(rules.authenticate(b"super:test"), [Id::new("super", ""), digest]);
        assert_eq!(rules.authenticate(b"super:tes").len(), 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_a_user_all_the_same() {
        let ids = DigestRules::default().authenticate(&[b'u', b':', 0xff]);
        assert_eq!(ids, DigestRules::default().authenticate("u:\u{fffd}".as_bytes()));
    }
}
