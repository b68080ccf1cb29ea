//! A client that creates one znode after the other, and comes back when its connection breaks.
//!
//! It does what a client library does: the next server of its list, the same session, and never
//! the same write again when its outcome is not known.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::op::OpCode;

use crate::client::Client;
use crate::load::setup::noise;
use crate::wire::{self, Handshake, Welcome};

/// Pause between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// How long the first attempt waits for an answer,
const ATTEMPT_WAIT_MIN: Duration = Duration::from_millis(100);
/// and how long the later ones do.
const ATTEMPT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Session timeout, milliseconds; a reply may take two thirds of it.
const TIMEOUT_MS: i32 = 30_000;
const REPLY_WAIT: Duration = Duration::from_millis(TIMEOUT_MS as u64 * 2 / 3);

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The znode's number.
    pub number: u64,
    /// When it was sent, microseconds of the run's clock,
    pub sent_us: u64,
    /// and when it was acknowledged.
    pub acked_us: u64,
    /// The epoch of its zxid.
    pub epoch: u32,
}

/// What a writer went through.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its parent znode.
    pub directory: String,
    /// What was acknowledged, in order.
    pub acks: Vec<Ack>,
    /// Writes whose outcome it was not told.
    pub unknown: u64,
    /// When connections broke, microseconds.
    pub disconnects_us: Vec<u64>,
    /// Sessions that the servers ended.
    pub expired: u64,
    /// Answers with an error, by code.
    pub refused: BTreeMap<i32, u64>,
}

/// What is to be seen of a writer while it runs.
#[derive(Debug, Default)]
pub struct Sight {
    /// When the last acknowledged write was sent, microseconds,
    pub sent_us: AtomicU64,
    /// and when it was acknowledged.
    pub acked_us: AtomicU64,
    /// The epoch of its zxid.
    pub epoch: AtomicU32,
}

/// The writer; [`Writer::run`] is its thread.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The run's clock.
    pub clock: Instant,
    /// The servers it may use, its first one first.
    pub servers: Vec<SocketAddr>,
    /// Its parent znode, which is there.
    pub directory: String,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Tells it to end.
    pub stop: &'a AtomicBool,
    /// Where it shows how far it is.
    pub sight: &'a Sight,
}

struct Session {
    welcome: Welcome,
    last_zxid: i64,
    next_server: usize,
}

impl Writer<'_> {
    /// Writes until it is told to stop.
    pub fn run(self) -> Record {
        let mut record = Record { directory: self.directory.clone(), ..Record::default() };
        let nobody = Welcome { timeout_ms: 0, session: 0, password: [0; 16] };
        let mut session = Session { welcome: nobody, last_zxid: 0, next_server: 0 };
        let value = noise(self.value_bytes);
        let (mut number, mut connection) = (0, None);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(client) = &mut connection else {
                connection = self.connect(&mut session, &mut record);
                continue;
            };
            number += 1;
            if self.write(client, number, &value, &mut session, &mut record).is_none() {
                connection = None;
                record.disconnects_us.push(self.now_us());
            }
        }
        if let Some(client) = connection {
            // The session would end by itself; there is nobody to tell that it did not at once.
            client.close().unwrap_or_default();
        }
        record
    }

    /// One create; none when the connection is of no more use.
    fn write(
        &self,
        client: &mut Client,
        number: u64,
        value: &[u8],
        session: &mut Session,
        record: &mut Record,
    ) -> Option<()> {
        let path = format!("{}/{number}", self.directory);
        let sent_us = self.now_us();
        let reply =
            client.call(OpCode::Create, |w| wire::create_body(w, path.as_bytes(), value, 0));
        let acked_us = self.now_us();
        let Ok(reply) = reply else {
            record.unknown += 1;
            return None;
        };
        session.last_zxid = session.last_zxid.max(reply.header.zxid);
        match reply.header.err {
            0 => {
                let epoch = (reply.header.zxid >> 32) as u32;
                record.acks.push(Ack { number, sent_us, acked_us, epoch });
                self.sight.epoch.store(epoch, Ordering::Relaxed);
                self.sight.sent_us.store(sent_us, Ordering::Relaxed);
                self.sight.acked_us.store(acked_us, Ordering::Relaxed);
            }
            err => *record.refused.entry(err).or_default() += 1,
        }
        Some(())
    }

    /// Connects to the first server in turn that takes the session, or gives one.
    fn connect(&self, session: &mut Session, record: &mut Record) -> Option<Client> {
        let mut wait = ATTEMPT_WAIT_MIN;
        while !self.stop.load(Ordering::Relaxed) {
            let server = self.servers[session.next_server % self.servers.len()];
            let handshake = Handshake {
                last_zxid: session.last_zxid,
                timeout_ms: TIMEOUT_MS,
                session: session.welcome.session,
                password: session.welcome.password,
            };
            let begun = Instant::now();
            match Client::attach(server, handshake, wait) {
                Ok(client) if client.session.session == 0 => {
                    record.expired += 1;
                    session.welcome = client.session;
                    continue;
                }
                Ok(client) if client.set_reply_wait(REPLY_WAIT).is_ok() => {
                    session.welcome = client.session;
                    return Some(client);
                }
                // A server may be slow, or not say that it has no leader.
                Ok(_) | Err(_) if begun.elapsed() >= wait => {
                    wait = (wait * 2).min(ATTEMPT_WAIT_MAX)
                }
                Ok(_) | Err(_) => thread::sleep(RETRY_PAUSE),
            }
            session.next_server += 1;
        }
        None
    }

    fn now_us(&self) -> u64 {
        self.clock.elapsed().as_micros() as u64
    }
}
