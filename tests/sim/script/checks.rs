//! The properties of the ZAB paper, looked at after every step of every server.
//!
//! A server *broadcasts* a transaction when it leads and logs it, and *delivers* one when it shows
//! it while it serves clients.
//!
//!   * integrity: what is delivered was broadcast
//!   * total order, agreement: the transaction before a delivered one is the same wherever it is
//!     delivered, and so is the state behind it
//!   * local primary order: a leader's transactions are delivered in the order of their broadcast,
//!     none left out
//!   * global primary order: those of an earlier epoch are delivered before those of a later one
//!   * primary integrity: who broadcasts in an epoch has delivered all that anybody ever delivers
//!     of earlier epochs
//!   * leadership: an epoch has one leader
//!
//! Junqueira, Reed, Serafini: Zab: High-performance broadcast for primary-backup systems, DSN 2011,
//! section III; the last one from `zookeeper-specifications/protocol-spec/Zab.tla`.

use std::collections::BTreeMap;

use engine::order::Service;
use engine::quorum_peer::{QuorumPeer, RoleKind};
use engine::tree;
use engine::zxid::{Epoch, Zxid};

/// What was seen.
#[derive(Debug)]
pub struct Checks {
    /// Whatever was broadcast, and its bytes.
    broadcast: BTreeMap<Zxid, Vec<u8>>,
    /// Who leads an epoch, and where its history ended when it began.
    leaders: BTreeMap<Epoch, (usize, Zxid)>,
    /// The transaction before one that was delivered.
    before: BTreeMap<Zxid, Zxid>,
    digests: BTreeMap<Zxid, u64>,
    /// By server: the last that it delivered in this life.
    delivered: Vec<Zxid>,
    /// The last that anybody delivered.
    last: Zxid,
}

impl Checks {
    /// Nothing was seen yet.
    pub fn new(servers: usize) -> Self {
        Self {
            broadcast: BTreeMap::new(),
            leaders: BTreeMap::new(),
            before: BTreeMap::new(),
            digests: BTreeMap::new(),
            delivered: vec![Zxid::ZERO; servers],
            last: Zxid::ZERO,
        }
    }

    /// A server starts.
    pub fn begin(&mut self, server: usize) {
        self.delivered[server] = Zxid::ZERO;
    }

    /// A server has done something.
    pub fn look_at(&mut self, server: usize, peer: &QuorumPeer) {
        let leads = matches!(peer.role(), RoleKind::Leading { .. });
        if leads {
            self.note_broadcasts(server, peer);
        }
        if leads || peer.service() == Service::Serving {
            self.note_deliveries(server, peer);
        }
    }

    /// A server takes a snapshot: of nothing that could have to go again.
    pub fn snapshot(&self, server: usize, zxid: Zxid) {
        let shown = self.delivered[server];
        assert!(zxid <= shown, "server {} has shown {shown}, and keeps {zxid}", server + 1);
    }

    /// A puppet that leads proposes this.
    pub fn puppet_proposes(&mut self, zxid: Zxid, txn: &[u8]) {
        let known = self.broadcast.entry(zxid).or_insert_with(|| txn.to_vec());
        assert_eq!(known, txn, "{zxid} is another transaction");
    }

    fn note_broadcasts(&mut self, server: usize, peer: &QuorumPeer) {
        let replica = peer.replica();
        // The state that an epoch begins with has its zxid before anything is logged.
        let epoch = replica.last_made().epoch();
        let history = replica.history();
        if !self.leaders.contains_key(&epoch) {
            let old = history.behind(Zxid::ZERO).map(|(zxid, _)| zxid);
            let end = old.filter(|zxid| zxid.epoch() < epoch).last();
            let end = end.unwrap_or(replica.last_logged().min(Zxid::new(epoch, 0)));
            assert!(
                self.last <= end,
                "server {} leads epoch {} with a history to {end}, {} was delivered",
                server + 1,
                epoch.0,
                self.last
            );
            self.leaders.insert(epoch, (server, end));
        }
        let leader = self.leaders[&epoch].0;
        assert_eq!(leader, server, "two servers lead epoch {}", epoch.0);
        let begin = Zxid::new(epoch, 0);
        let epoch_end = Zxid::new(epoch, u32::MAX);
        let known =
            self.broadcast.range(begin..=epoch_end).next_back().map_or(begin, |(zxid, _)| *zxid);
        for (zxid, txn) in history.behind(known) {
            let previous = self.broadcast.insert(zxid, txn.to_vec());
            assert!(previous.is_none(), "{zxid} is broadcast twice");
            let first = zxid.counter() == 1;
            assert!(first || self.broadcast.contains_key(&Zxid(zxid.0 - 1)), "{zxid} has a gap");
        }
    }

    fn note_deliveries(&mut self, server: usize, peer: &QuorumPeer) {
        let replica = peer.replica();
        let shown = replica.published().zxid();
        let last = self.delivered[server];
        assert!(shown >= last, "server {} goes back from {last} to {shown}", server + 1);
        if shown == last {
            return;
        }
        self.delivered[server] = shown;
        let digest = tree::digest(replica.published());
        let known = *self.digests.entry(shown).or_insert(digest);
        assert_eq!(known, digest, "server {} differs at {shown}", server + 1);
        let mut before = None;
        for (zxid, txn) in replica.history().behind(last) {
            if zxid > shown {
                break;
            }
            let broadcast = self.broadcast.get(&zxid).map(Vec::as_slice);
            assert_eq!(broadcast, Some(txn), "{zxid} at server {}", server + 1);
            self.deliver(server, zxid, before);
            before = Some(zxid);
        }
    }

    fn deliver(&mut self, server: usize, zxid: Zxid, before: Option<Zxid>) {
        if let Some(before) = before {
            assert!(before < zxid, "server {}: {zxid} behind {before}", server + 1);
            let known = *self.before.entry(zxid).or_insert(before);
            assert_eq!(known, before, "server {}: before {zxid}", server + 1);
            let follows = before.next() == Some(zxid) || zxid.counter() == 1;
            assert!(follows, "server {} delivers {zxid} behind {before}", server + 1);
        }
        for (epoch, (leader, end)) in self.leaders.range(Epoch(zxid.epoch().0 + 1)..) {
            assert!(
                zxid <= *end,
                "server {} delivers {zxid}, which server {} did not have when it led epoch {}",
                server + 1,
                leader + 1,
                epoch.0
            );
        }
        self.last = self.last.max(zxid);
    }
}
