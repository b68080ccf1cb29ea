//! What the configuration says about the meaning of requests.

use crate::limits::PACKET_BYTES_MAX_DEFAULT;

/// Settings that change answers, by the names of ZooKeeper's properties.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a configuration")]
pub struct Rules {
    /// No permission is checked (`skipACL`).
    pub skip_acl: bool,
    /// The digest scheme is there (`DigestAuthenticationProvider.enabled`).
    pub digest_scheme: bool,
    /// TTL znodes can be created (`extendedTypesEnabled`).
    pub extended_types: bool,
    /// Hard quotas refuse writes (`enforceQuota`).
    pub enforce_quota: bool,
    /// The reconfig request is not refused out of hand (`reconfigEnabled`).
    pub reconfig_enabled: bool,
    /// Servers of the ensemble may have sessions that no other knows (`localSessionsEnabled`).
    pub local_sessions: bool,
    /// Largest packet of a client (`jute.maxbuffer`); a transaction may have twice as much.
    pub packet_bytes_max: usize,
}

impl Rules {
    /// Largest record of a transaction that servers exchange.
    ///
    // Compat: BinaryInputArchive - what was accepted from a client may grow by
    // `jute.maxbuffer.extrasize`, which is as much again, before a peer refuses it.
    pub fn txn_bytes_max(&self) -> usize {
        self.packet_bytes_max.saturating_mul(2)
    }

    /// What may be on its way to one connection, bytes. Whatever can be written in one packet can
    /// be read.
    pub fn output_bytes_max(&self) -> usize {
        OUTPUT_BYTES_MAX.max(self.packet_bytes_max.saturating_mul(4))
    }

    /// Longest answer to a list, or to a packet of reads, bytes, give or take one item: half of
    /// what may be on its way. A packet may ask for any znode again and again, and a znode may have
    /// any number of children, so without a bound there could be more than there is memory.
    pub fn answer_bytes_max(&self) -> usize {
        self.output_bytes_max() / 2
    }
}

/// What may be on its way to one connection where packets have the usual size, bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;

impl Default for Rules {
    fn default() -> Self {
        Self {
            skip_acl: false,
            digest_scheme: true,
            extended_types: false,
            enforce_quota: false,
            reconfig_enabled: false,
            local_sessions: false,
            packet_bytes_max: PACKET_BYTES_MAX_DEFAULT,
        }
    }
}
