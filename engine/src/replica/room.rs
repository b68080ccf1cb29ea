//! What is refused while memory or disk are short: writes that make the state grow.
//!
//! Deletions, shrinking writes and the end of sessions go through, so that clients can make room
//! themselves; so do new sessions, without which nobody could delete. A refusal is no transaction:
//! it would take room in the log. Replayed and committed transactions are never refused.

use super::Replica;
use crate::btree::View;
use crate::pages::PAGE_BYTES;
use crate::prep;
use crate::records::multi::MultiOp;
use crate::tree;
use crate::txnlog::Space;

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The disk has no room for another segment of the log.
    Disk,
    /// The tree has reached its soft limit of memory.
    Memory,
}

impl Replica {
    /// How much of the log is worth reading from its files for one learner, bytes; none if it is
    /// not to be read. Beyond that, the tree is cheaper.
    ///
    // Compat: ZKDatabase.calculateTxnLogSizeLimit, which takes the size of the newest snapshot
    pub fn log_bytes_worth_reading(&self) -> Option<u64> {
        Some((self.tree_bytes() as f64 * self.config.log_share?) as u64)
    }

    /// How large the tree is, bytes: a snapshot of it, too.
    pub(super) fn tree_bytes(&self) -> u64 {
        let pages = self.tree.view().page_stats();
        ((pages.used - pages.waiting) * PAGE_BYTES) as u64
    }

    /// Whether this write is to be refused now.
    pub(super) fn refuses(&mut self, write: &prep::Request<'_>) -> bool {
        let shortage = self.shortage();
        if shortage != self.shortage {
            match shortage {
                Some(Shortage::Disk) => {
                    tracing::error!("the log's disk is full: no growing writes");
                }
                Some(Shortage::Memory) => {
                    tracing::error!("memory limit reached: no growing writes");
                }
                None => tracing::info!("there is room again"),
            }
            self.shortage = shortage;
        }
        shortage.is_some() && grows(self.tree.view(), write)
    }

    fn shortage(&self) -> Option<Shortage> {
        if self.log.space() != Space::Ample {
            return Some(Shortage::Disk);
        }
        let max = self.config.memory_bytes_max?;
        let used = self.tree.view().page_stats().used as u64 * PAGE_BYTES as u64;
        (used > max).then_some(Shortage::Memory)
    }
}

/// Whether the state would be larger after this write.
fn grows(view: &impl View, write: &prep::Request<'_>) -> bool {
    match write {
        prep::Request::Create(..) | prep::Request::SetAcl(_) => true,
        prep::Request::SetData(set) => data_grows(view, &set.path, set.data),
        prep::Request::Multi(Some(ops)) => ops.iter().any(|op| match op {
            MultiOp::Create(..) => true,
            MultiOp::SetData(set) => data_grows(view, &set.path, set.data),
            MultiOp::Delete(_)
            | MultiOp::Check(_)
            | MultiOp::GetData(_)
            | MultiOp::GetChildren(_) => false,
        }),
        prep::Request::Delete(_)
        | prep::Request::Multi(None)
        | prep::Request::Reconfig(_)
        | prep::Request::NullPath(_)
        | prep::Request::Unknown => false,
    }
}

fn data_grows(view: &impl View, path: &str, data: Option<&[u8]>) -> bool {
    let now = tree::znode(view, path).map_or(0, |znode| znode.data_bytes());
    data.map_or(0, <[u8]>::len) > now
}
