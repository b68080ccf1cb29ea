//! The digests that the tree had at every 128th transaction: servers of an ensemble that have the
//! same state name the same ones.

use std::collections::VecDeque;

use crate::zxid::Zxid;

/// Every so many zxids a digest is kept.
// Compat: DataTree.DIGEST_LOG_INTERVAL
const INTERVAL: u64 = 128;

/// How many are kept.
// Compat: DataTree.DIGEST_LOG_LIMIT
const KEPT_MAX: usize = 1024;

/// The last digests, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct DigestLog(VecDeque<(Zxid, u64)>);

impl DigestLog {
    /// Notes the digest after a transaction, or after a part of one: the last part counts.
    pub(super) fn note(&mut self, zxid: Zxid, digest: u64) {
        if !zxid.0.is_multiple_of(INTERVAL) {
            return;
        }
        match self.0.back_mut() {
            Some(last) if last.0 == zxid => last.1 = digest,
            _ => self.0.push_back((zxid, digest)),
        }
        if self.0.len() > KEPT_MAX {
            self.0.pop_front();
        }
    }

    /// Forgets what came after `zxid`.
    pub(super) fn return_to(&mut self, zxid: Zxid) {
        while self.0.pop_back_if(|last| last.0 > zxid).is_some() {}
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_ones_of_every_128th() {
        let mut log = DigestLog::default();
        for zxid in 1..=128 * 1_030 {
            log.note(Zxid(zxid), zxid + 1);
            log.note(Zxid(zxid), zxid);
        }
        let kept: Vec<_> = log.iter().collect();
        assert_eq!(kept.len(), 1_024);
        assert_eq!(kept[0], (Zxid(128 * 7), 128 * 7));
        log.return_to(Zxid(128 * 8 + 5));
        let kept: Vec<_> = log.iter().collect();
        assert_eq!(kept, [(Zxid(896), 896), (Zxid(1_024), 1_024)]);
    }
}
