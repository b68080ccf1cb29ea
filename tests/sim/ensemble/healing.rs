//! How all is put right. For a part of the seeds a minority stays ill at first: the others must
//! become well without it, and stay so while clients work. Then everybody is healed.
//!
//! What can be asked of those that are healed, while others are not: they become well if a quorum
//! of *voters with data* is among them, and only then (see [`World::can_do_without_the_ill`]). A
//! member without data does not vote: one that was wiped, or whose data were found to be damaged,
//! waits for a leader that the others elect; and one that got a leader's tree, and lost that leader
//! before its epoch was durable, has no data in its own eyes. If all are without, an ensemble
//! begins when every voter has answered. So where the healed lack such a quorum, more are healed
//! until they have it, or all are.
//!
//! What is slow becomes so when the others are well, it leads nobody, and no epoch ends by itself:
//! a slow server that leads is no reason for an election, and one whose log goes further than all
//! others wins each, however long learners then wait for its disk or its links. Behind a leader
//! that is healed its log is never ahead.

use engine::quorum_peer::RoleKind;
use engine::zxid::Zxid;

use super::client::Client;
use super::host::{End, Host};
use super::{Event, MS, SECOND, World};

/// So many seeds in a hundred leave somebody ill.
const ILL: usize = 40;
/// How much longer something slow takes: less than a leader bears, more than that, and more than
/// it takes to be elected.
const LAGS: [u64; 3] = [300 * MS, 1500 * MS, 4 * SECOND];
/// Links on which nothing is acknowledged end within this time. (TCP has more patience, and a
/// smaller window.)
const LINKS_DIE: u64 = 10 * SECOND;
/// No run reaches this counter from the beginning of an epoch.
const EPOCH_LONG: u32 = 1 << 20;
/// Clients work for up to this long beside those that are ill.
const WORK: u64 = 2 * SECOND;

/// What a server has while others are well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ailment {
    /// It does not run.
    Dead,
    /// Nothing passes between it and others.
    CutOff,
    /// It hears nobody; what it says arrives.
    Deaf,
    /// It hears all; what it says does not arrive.
    Mute,
    /// Each operation of its disk takes so much longer.
    SlowDisk(u64),
    /// Each message from it or to it takes so much longer.
    SlowLinks(u64),
}

impl Ailment {
    /// Whether it is that something is slow.
    fn is_lag(self) -> bool {
        matches!(self, Self::SlowDisk(_) | Self::SlowLinks(_))
    }

    /// For counts.
    fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::CutOff => "cut off",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::SlowDisk(_) => "slow disk",
            Self::SlowLinks(_) => "slow links",
        }
    }
}

impl World {
    /// Faults are over: a quorum is healed and becomes well, then everybody.
    pub(super) fn recover(&mut self) {
        if self.care.percent(ILL) {
            self.leave_some_ill();
        }
        self.heal();
        let is_ill = |host: &Host| host.ailment.is_some();
        if !self.becomes_well() || !self.hosts.iter().any(is_ill) {
            return;
        }
        self.begin_to_lag();
        self.clients.iter_mut().for_each(Client::end_proof);
        let end = self.now + self.care.any() % WORK;
        self.run_until(end, |_| false);
        if self.becomes_well() {
            self.hosts.iter_mut().for_each(|host| host.ailment = None);
            self.lags = false;
            self.heal();
            self.becomes_well();
        }
    }

    /// Runs until all is well with those that are healed. It must become so; but a planted mistake
    /// is to be noticed by what it breaks, so with one it need not. Nor with the faults that one
    /// needs: they may take the disks of a quorum.
    fn becomes_well(&mut self) -> bool {
        let is_provoked = self.options.provoked.is_some();
        let patience = if is_provoked { 20 } else { 120 };
        let end = self.now + patience * SECOND;
        self.clients.iter_mut().for_each(Client::begin_proof);
        let is_well = self.run_until(end, Self::is_well);
        assert!(is_well || is_provoked, "it does not become well again: {:#?}", self.describe());
        if is_well {
            self.check_end();
        }
        is_well
    }

    /// Chooses a minority of the voters, and what they have; observers as well.
    fn leave_some_ill(&mut self) {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        for nth in (1..order.len()).rev() {
            order.swap(nth, self.care.below(nth + 1));
        }
        for index in order {
            let others = |host: &Host| host.index != index && host.ailment.is_none();
            if self.is_quorum(others) && self.care.percent(70) {
                self.hosts[index].ailment = self.draw_ailment();
            }
        }
        for index in 0..self.options.voters {
            if !self.can_do_without_the_ill() {
                self.hosts[index].ailment = None;
            }
        }
    }

    fn draw_ailment(&mut self) -> Option<Ailment> {
        let lag = LAGS[self.care.below(LAGS.len())];
        let ailment = match self.care.below(10) {
            0..3 => Ailment::Dead,
            3..5 => Ailment::CutOff,
            5 => Ailment::Deaf,
            6 => Ailment::Mute,
            7 => Ailment::SlowLinks(lag),
            _ => Ailment::SlowDisk(lag),
        };
        (!ailment.is_lag() || self.options.rollover_counter > EPOCH_LONG).then_some(ailment)
    }

    /// From now on, what is slow is slow.
    fn begin_to_lag(&mut self) {
        self.lags = true;
        for host in &mut self.hosts {
            let Some(ailment) = host.ailment.filter(|it| it.is_lag()) else { continue };
            if host.leads() {
                host.ailment = None;
            } else {
                self.touches_were_late = true;
                *self.stats.ailments.entry(ailment.name()).or_default() += 1;
            }
        }
    }

    /// Whether those that are healed can elect a leader and commit what it proposes; and, as one
    /// voter may weigh enough for that, whether somebody serves clients where leaders don't.
    fn can_do_without_the_ill(&self) -> bool {
        let is_served = self.options.leader_serves || self.healed().count() > 1;
        is_served && self.is_quorum(|host| host.ailment.is_none() && host.votes())
    }

    /// Whether the voters that are picked are a quorum.
    pub(super) fn is_quorum(&self, picks: impl Fn(&Host) -> bool) -> bool {
        self.members.is_quorum(|id| picks(&self.hosts[id.0 as usize - 1]))
    }

    /// Everybody lives, disks work, and everything arrives, but for what servers are left with.
    fn heal(&mut self) {
        self.network.mend();
        for index in 0..self.hosts.len() {
            self.impose(index);
        }
        self.release();
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            if host.ailment == Some(Ailment::Dead) {
                let is_killed = self.care.percent(50);
                self.end(index, if is_killed { End::Killed } else { End::PowerLost });
                continue;
            }
            host.medium.heal();
            host.store.set_full(false);
            if host.process.is_none() && !host.medium.is_refused {
                self.start(index);
            }
        }
    }

    fn impose(&mut self, index: usize) {
        let Some(ailment) = self.hosts[index].ailment else { return };
        self.tell(|| format!("LEFT {ailment:?} {}", index + 1));
        if !ailment.is_lag() {
            *self.stats.ailments.entry(ailment.name()).or_default() += 1;
        }
        let others = (0..self.hosts.len()).filter(|other| *other != index);
        match ailment {
            Ailment::CutOff => others.for_each(|other| self.cut_off(index, other)),
            Ailment::Mute => others.for_each(|other| self.mute(index, other)),
            Ailment::Deaf => others.for_each(|other| self.mute(other, index)),
            Ailment::Dead | Ailment::SlowDisk(_) | Ailment::SlowLinks(_) => {}
        }
        if matches!(ailment, Ailment::Mute | Ailment::Deaf) {
            let delay = self.care.any() % LINKS_DIE;
            self.at(delay, Event::LinksDie(index));
        }
    }

    /// The links of a server end, unless it has been healed meanwhile.
    pub(super) fn lose_links(&mut self, index: usize) {
        if self.hosts[index].ailment.is_none() {
            return;
        }
        for other in 0..self.hosts.len() {
            self.break_links(index, other);
            self.break_links(other, index);
        }
    }

    /// How much longer the disk takes than it should.
    pub(super) fn disk_lag(&mut self, index: usize) -> u64 {
        match self.hosts[index].ailment {
            Some(Ailment::SlowDisk(lag)) if self.lags => lag / 2 + self.care.any() % lag,
            _ => 0,
        }
    }

    /// How much longer a message takes between two servers.
    pub(super) fn link_lag(&mut self, from: usize, to: usize) -> u64 {
        let mut sum = 0;
        if !self.lags {
            return 0;
        }
        for index in [from, to] {
            if let Some(Ailment::SlowLinks(lag)) = self.hosts[index].ailment {
                sum += lag / 2 + self.care.any() % lag;
            }
        }
        sum
    }

    /// Whether those that are healed follow one leader and have all that it has, and every client
    /// was served since the healing. One that is slow may lead, and be the first to have something.
    fn is_well(&self) -> bool {
        let mut leaders = self.healed().map(leader);
        let Some(Some(first)) = leaders.next() else { return false };
        let leads = self.hosts[first].leads() && leaders.all(|leader| leader == Some(first));
        let mut judged = self.healed().chain([&self.hosts[first]]);
        leads
            && self.clients.iter().all(Client::has_proof)
            && judged.all(|host| host.is_idle() && digest(host) == digest(&self.hosts[first]))
    }

    fn check_end(&mut self) {
        let healed: Vec<usize> = self.healed().map(|host| host.index).collect();
        let version = |host: &Host| host.published().expect("all live").clone();
        for index in &healed {
            let host = &self.hosts[*index];
            assert!(!host.digest_differs(), "server {} found another digest", index + 1);
            self.checks.on_published(*index, &version(host));
        }
        let first = version(&self.hosts[healed[0]]);
        self.checks.check_ephemerals(&first);
        for client in &self.clients {
            client.check_end(&first, &self.checks);
        }
    }

    fn healed(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.ailment.is_none())
    }

    fn describe(&self) -> Vec<String> {
        let host = |host: &Host| {
            let (role, applied) = (host.role(), applied(host));
            let ailment = host.ailment;
            format!("server {}: {role:?}, applied {applied:?}, {ailment:?}", host.index + 1)
        };
        let clients = self.clients.iter().map(Client::describe);
        self.hosts.iter().map(host).chain(clients).collect()
    }
}

/// Who leads the server.
fn leader(host: &Host) -> Option<usize> {
    match host.role()? {
        RoleKind::Leading { .. } => Some(host.index),
        RoleKind::Following(leader) | RoleKind::Observing(leader) => Some(leader.0 as usize - 1),
        RoleKind::Looking | RoleKind::Standalone => None,
    }
}

/// A leader's state begins with a zxid that no transaction has, so zxids are not compared.
fn digest(host: &Host) -> Option<u64> {
    host.published().map(engine::tree::digest)
}

fn applied(host: &Host) -> Option<Zxid> {
    host.published().map(engine::btree::Version::zxid)
}
