//! The wording of answers, to the letter as ZooKeeper 3.9 has it, since scripts read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use engine::auth::ip::host_address;
use engine::ids::SessionId;
use engine::op::OpCode;
use engine::time::WallTime;
use engine::zxid::Zxid;
use time::OffsetDateTime;

use super::Word;
use super::report::{
    ConfigReport, ConnectionReport, DumpReport, EnvironmentReport, LatencyReport, MemberReport,
    ServerReport, SessionsReport, SizeReport, WatchReport,
};
use crate::version;

/// What a server says that is not (yet, or any longer) able to answer clients.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// The only one there is: fast leader election.
const ELECTION_ALGORITHM: u8 = 3;

/// The trace mask that ZooKeeper starts with. Here, the mask has no effect.
// Compat: ZooTrace.traceMask
pub const TRACE_MASK: i64 = 0b1_0011_0010;

/// The answer to a word that the whitelist lacks.
pub fn not_allowed(word: Word) -> String {
    format!("{} is not executed because it is not in the whitelist.\n", word.name())
}

/// The answer to a word while the server does not serve; `None` if it is answered even then.
// Compat: isZKServerRunning in each command; isro and hash print their text without a line end.
pub fn not_serving(word: Word) -> Option<String> {
    match word {
        Word::Ruok | Word::Envi | Word::Gtmk | Word::Stmk | Word::TelnetClose => None,
        Word::Isro => Some("null".to_owned()),
        Word::Hash => Some(NOT_SERVING.to_owned()),
        _ => Some(format!("{NOT_SERVING}\n")),
    }
}

/// The answer to a word that does not depend on anything, given when its deed is done.
pub fn constant(word: Word) -> Option<&'static str> {
    match word {
        Word::Ruok => Some("imok"),
        // A server that serves at all takes writes.
        Word::Isro => Some("rw"),
        Word::Crst => Some("Connection stats reset.\n"),
        Word::Srst => Some("Server stats reset.\n"),
        _ => None,
    }
}

/// The answer to `gtmk`, and to `stmk` with the mask that was sent.
pub fn trace_mask(mask: i64) -> String {
    mask.to_string()
}

/// The answer to `srvr`.
pub fn srvr(server: &ServerReport) -> String {
    stat_around(server, "")
}

/// The answer to `stat`.
pub fn stat(server: &ServerReport, connections: &[ConnectionReport]) -> String {
    let mut clients = "Clients:\n".to_owned();
    for report in connections {
        clients += &connection(report, true);
        clients += "\n";
    }
    stat_around(server, &(clients + "\n"))
}

// Compat: StatCommand.commandRun, ServerStats.toString
fn stat_around(server: &ServerReport, clients: &str) -> String {
    let mut out = format!("Zookeeper version: {}\n{clients}", version::FULL);
    let LatencyReport { min_ms, average, max_ms } = server.latency;
    write_lines(
        &mut out,
        &[
            ("Latency min/avg/max: ", &format_args!("{min_ms}/{average}/{max_ms}")),
            ("Received: ", &server.packets_received),
            ("Sent: ", &server.packets_sent),
            ("Connections: ", &server.connections),
            ("Outstanding: ", &server.outstanding),
            ("Zxid: ", &format_args!("{:#x}", server.zxid.0)),
            ("Mode: ", &server.mode.name()),
            ("Node count: ", &server.znodes),
        ],
    );
    if let Some(SizeReport { last, min, max }) = server.proposals {
        write_lines(
            &mut out,
            &[("Proposal sizes last/min/max: ", &format_args!("{last}/{min}/{max}"))],
        );
    }
    out
}

fn write_lines(out: &mut String, lines: &[(&str, &dyn fmt::Display)]) {
    for (name, value) in lines {
        writeln!(out, "{name}{value}").expect("writing to a string cannot fail");
    }
}

/// The answer to `cons`.
pub fn cons(connections: &[ConnectionReport]) -> String {
    let lines = connections.iter().map(|one| format!("{}\n", connection(one, false)));
    lines.chain(["\n".to_owned()]).collect()
}

/// One connection, in a line without its end.
// Compat: ServerCnxn.dumpConnectionInfo
fn connection(report: &ConnectionReport, brief: bool) -> String {
    // Compat: SelectionKey.OP_READ and OP_WRITE
    let interest = u8::from(report.reads) | u8::from(report.writes) << 2;
    let mut out = format!(
        " {}[{interest:x}](queued={},recved={},sent={}",
        peer(report.peer),
        report.queued,
        report.received,
        report.sent
    );
    if let Some(session) = report.session.as_ref().filter(|_| !brief) {
        let xid = session.last_xid.0;
        let last_xid = if xid >= 0 { format!(",lcxid={xid:#x}") } else { String::new() };
        let LatencyReport { min_ms, average, max_ms } = session.latency;
        out += &format!(
            ",sid={},lop={},est={},to={}{last_xid},lzxid={:#x},lresp={},llat={},minlat={min_ms},\
             avglat={},maxlat={max_ms}",
            session.id,
            session.last_operation,
            session.established.0,
            session.timeout_ms,
            session.last_zxid.0,
            session.last_response_ms,
            session.last_latency_ms,
            average.whole()
        );
    }
    out + ")"
}

/// An address as Java prints one that has no name.
fn peer(address: SocketAddr) -> String {
    let host = host_address(address);
    if host.contains(':') {
        format!("/[{host}]:{}", address.port())
    } else {
        format!("/{host}:{}", address.port())
    }
}

/// How `cons` abbreviates an operation that was answered; a new session is [`NEW_SESSION`].
// Compat: FinalRequestProcessor.processRequest, the values of lastOp
pub fn operation(op: OpCode) -> &'static str {
    match op {
        OpCode::Create | OpCode::Create2 | OpCode::CreateTtl | OpCode::CreateContainer => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::SetData => "SETD",
        OpCode::GetAcl => "GETA",
        OpCode::SetAcl => "SETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::Sync => "SYNC",
        OpCode::Ping => "PING",
        OpCode::Check => "CHEC",
        OpCode::Multi => "MULT",
        OpCode::MultiRead => "MLTR",
        OpCode::Reconfig => "RECO",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::SetWatches => "SETW",
        OpCode::SetWatches2 => "STW2",
        OpCode::AddWatch => "ADDW",
        OpCode::GetEphemerals => "GETE",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::WhoAmI => "HOMI",
        OpCode::CreateSession => NEW_SESSION,
        OpCode::CloseSession => "CLOS",
        OpCode::Auth | OpCode::Sasl | OpCode::Notification | OpCode::Error => NO_OPERATION,
    }
}

/// What `cons` says of a session that has only been opened.
pub const NEW_SESSION: &str = "SESS";

/// What `cons` says where nothing was answered since the statistics were reset.
pub const NO_OPERATION: &str = "NA";

/// The answer to `conf`.
// Compat: ZooKeeperServer.dumpConf
pub fn conf(config: &ConfigReport) -> String {
    let mut out = String::new();
    write_lines(
        &mut out,
        &[
            ("clientPort=", &config.client_port),
            ("secureClientPort=", &config.secure_client_port.map_or(-1, i32::from)),
            ("dataDir=", &config.data_dir.display()),
            ("dataDirSize=", &config.data_dir_bytes),
            ("dataLogDir=", &config.data_log_dir.display()),
            ("dataLogSize=", &config.data_log_bytes),
            ("tickTime=", &config.tick_ms),
            ("maxClientCnxns=", &config.client_cnxns_max),
            ("minSessionTimeout=", &config.session_timeout_min_ms),
            ("maxSessionTimeout=", &config.session_timeout_max_ms),
            ("clientPortListenBacklog=", &config.listen_backlog),
            ("serverId=", &config.server_id),
        ],
    );
    if let Some(member) = &config.member {
        conf_member(&mut out, member);
    }
    out
}

// Compat: QuorumZooKeeperServer.dumpConf
fn conf_member(out: &mut String, member: &MemberReport) {
    let ports = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join("|");
    write_lines(
        out,
        &[
            ("initLimit=", &member.init_limit),
            ("syncLimit=", &member.sync_limit),
            ("electionAlg=", &ELECTION_ALGORITHM),
            ("electionPort=", &ports(&member.election_ports)),
            ("quorumPort=", &ports(&member.quorum_ports)),
            ("peerType=", &u8::from(member.is_observer)),
            ("membership: ", &""),
        ],
    );
    out.push_str(&member.membership);
}

/// The answer to `dirs`.
pub fn dirs(config: &ConfigReport) -> String {
    let ConfigReport { data_dir_bytes, data_log_bytes, .. } = config;
    format!("datadir_size: {data_dir_bytes}\nlogdir_size: {data_log_bytes}\n")
}

/// The answer to `envi`.
pub fn envi(environment: &EnvironmentReport) -> String {
    let lines = environment.0.iter().map(|(name, value)| format!("{name}={value}\n"));
    std::iter::once("Environment:\n".to_owned()).chain(lines).collect()
}

/// The answer to `dump`.
// Compat: DumpCommand.commandRun, ExpiryQueue.dump, LearnerSessionTracker.dumpSessions,
// DataTree.dumpEphemerals
pub fn dump(report: &DumpReport) -> String {
    let mut out = "SessionTracker dump:\n".to_owned();
    match &report.sessions {
        SessionsReport::Deadlines(deadlines) => {
            out += "Session ";
            dump_deadlines(&mut out, deadlines, SessionId::to_string);
        }
        SessionsReport::Timeouts(timeouts) => {
            out += &format!("Global Sessions({}):\n", timeouts.len());
            for (session, timeout_ms) in timeouts {
                out += &format!("{session}\t{timeout_ms}ms\n");
            }
        }
    }
    out += "ephemeral nodes dump:\n";
    out += &format!("Sessions with Ephemerals ({}):\n", report.ephemerals.len());
    for (session, paths) in &report.ephemerals {
        out += &format!("{session}:\n");
        for path in paths {
            out += &format!("\t{path}\n");
        }
    }
    out += "Connections dump:\nConnections ";
    dump_deadlines(&mut out, &report.connections, |(address, session)| {
        format!("ip: {} sessionId: {session}", peer(*address))
    });
    out
}

fn dump_deadlines<T>(
    out: &mut String,
    deadlines: &[(WallTime, Vec<T>)],
    shown: impl Fn(&T) -> String,
) {
    let elements: usize = deadlines.iter().map(|(_, elements)| elements.len()).sum();
    *out += &format!("Sets ({})/({elements}):\n", deadlines.len());
    for (time, elements) in deadlines {
        *out += &format!("{} expire at {}:\n", elements.len(), java_date(*time));
        for element in elements {
            *out += &format!("\t{}\n", shown(element));
        }
    }
}

/// The answer to `hash`: tree digests, oldest first.
// Compat: DigestCommand.commandRun
pub fn hash(digests: &[(Zxid, u64)]) -> String {
    let mut out = String::new();
    for (zxid, digest) in digests {
        out += &format!("{:x}: {}\n", zxid.0, digest.cast_signed());
    }
    out
}

/// The answer to `wchs`.
// Compat: WatchManager.toString, WatchCommand.commandRun
pub fn wchs(watches: &WatchReport) -> String {
    let paths: BTreeSet<&String> =
        watches.connections.iter().flat_map(|(_, paths)| paths).collect();
    let total: usize = watches.connections.iter().map(|(_, paths)| paths.len()).sum();
    let connections = watches.connections.len();
    format!("{connections} connections watching {} paths\nTotal watches:{total}\n", paths.len())
}

/// The answer to `wchc`.
// Compat: WatchManager.dumpWatches
pub fn wchc(watches: &WatchReport) -> String {
    let mut out = String::new();
    for (session, paths) in &watches.connections {
        out += &format!("{session}\n");
        for path in paths {
            out += &format!("\t{path}\n");
        }
    }
    out + "\n"
}

/// The answer to `wchp`, by path.
// Compat: WatchManager.dumpWatches
pub fn wchp(watches: &WatchReport) -> String {
    let mut sessions_by_path: BTreeMap<&str, Vec<SessionId>> = BTreeMap::new();
    for (session, paths) in &watches.connections {
        for path in paths {
            sessions_by_path.entry(path).or_default().push(*session);
        }
    }
    let mut out = String::new();
    for (path, sessions) in sessions_by_path {
        out += &format!("{path}\n");
        for session in sessions {
            out += &format!("\t{session}\n");
        }
    }
    out + "\n"
}

/// An average, which prints with four decimals at most, the last one rounded half up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Average(f64);

impl Average {
    /// The average of numbers with this sum and count; 0 if there are none.
    pub fn of(sum: u64, count: u64) -> Self {
        Self(if count == 0 { 0.0 } else { sum as f64 / count as f64 })
    }

    /// The average in milliseconds of times with this sum in microseconds.
    pub fn ms_of(sum_us: u64, count: u64) -> Self {
        Self::of(sum_us, count.saturating_mul(1_000))
    }

    /// The average without its decimals, as `cons` has it.
    pub fn whole(self) -> u64 {
        self.0 as u64
    }

    /// The average with four decimals.
    // Compat: AvgMinMaxCounter.getAvg
    pub fn rounded(self) -> f64 {
        // Decimals beyond the thirtieth cannot turn the fifth: doubles of this size have none.
        let exact = format!("{:.30}", self.0);
        let (whole, decimals) = exact.split_once('.').expect("thirty decimals were asked for");
        let kept = format!("{whole}{}", &decimals[..4]).parse::<u128>();
        let kept = kept.expect("24 digits, for no sum exceeds 64 bits");
        let rounded = kept + u128::from(decimals.as_bytes()[4] >= b'5');
        let text = format!("{}.{:04}", rounded / 10_000, rounded % 10_000);
        text.parse().expect("digits around a point are a number")
    }
}

impl fmt::Display for Average {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&java_double(self.rounded()))
    }
}

/// A number as Java's `Double.toString` prints it.
pub fn java_double(number: f64) -> String {
    let plain = number == 0.0 || (1e-3..1e7).contains(&number.abs());
    if plain || !number.is_finite() {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => text,
    }
}

/// A time as Java's `Date.toString` prints it, always in UTC.
fn java_date(time: WallTime) -> String {
    let seconds = time.0.div_euclid(1_000);
    // Beyond the calendar's years there is only nonsense to print.
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (weekday, month) = (date.weekday().to_string(), date.month().to_string());
    format!(
        "{} {} {:02} {:02}:{:02}:{:02} UTC {}",
        &weekday[..3],
        &month[..3],
        date.day(),
        date.hour(),
        date.minute(),
        date.second(),
        date.year()
    )
}

#[cfg(test)]
mod tests;
