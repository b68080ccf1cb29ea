//! Every setting that a `zoo.cfg` may hold: its name, what its value must be, what it does here.
//!
//! ZooKeeper reads some keys by name and turns all others into system properties named
//! `zookeeper.KEY`; which ones mean anything is scattered over its sources. This table has both
//! sorts, without the prefix, and the settings of ringkeeper's own, which begin with
//! `ringkeeper.`. A test compares it with `docs/configuration.md`.

use engine::limits::PACKET_BYTES_MOST;

use crate::cores::CORES_MAX;

/// One known setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name, without `zookeeper.` in front; a family's ends in a dot or is a bare beginning.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// What it does here.
    pub effect: Effect,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within these bounds.
    Int(i64, i64),
    /// A whole number in hexadecimal digits, of 63 bits.
    Hexadecimal,
    /// A number with decimals.
    Decimal,
    /// `true` or `false`, in any case.
    Bool,
    /// `yes` or `no`.
    YesNo,
    /// Any text but the empty one.
    Text,
    /// Any text.
    TextOrNothing,
    /// One of these words, in upper or lower case.
    OneOf(&'static [&'static str]),
}

/// What a setting does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What its description says.
    Full,
    /// It belongs to something that ringkeeper does not have (yet), named here. Saying nothing
    /// would be wrong, so it is a warning.
    Missing(&'static str),
    /// What is missing here matters to a member of an ensemble, unless the value is the first of
    /// these, and it is not what one would think of: a warning says it with the second.
    Otherwise(&'static str, &'static str),
    /// A member that passed over it would be less safe than it was told to be: an error, unless
    /// the value is the first of these; the second says why, and what to do.
    Unsafe(&'static str, &'static str),
    /// It is always on; switching it off is refused with a warning.
    Always,
    /// It tunes a mechanism that is built differently here; the reason. Nothing is lost.
    Built(&'static str),
}

impl Kind {
    /// Whether `value` is allowed; if not, what would be.
    pub fn check(self, value: &str) -> Result<(), String> {
        let (fits, allowed) = match self {
            Self::Int(min, max) => {
                let fits = number(value).is_some_and(|number| min <= number && number <= max);
                (fits, format!("a whole number from {min} to {max}"))
            }
            Self::Hexadecimal => (hexadecimal(value).is_some(), "a hexadecimal number".to_owned()),
            Self::Decimal => {
                let fits = value.parse::<f64>().is_ok_and(f64::is_finite);
                (fits, "a number".to_owned())
            }
            Self::Bool => {
                let fits = ["true", "false"].iter().any(|word| word.eq_ignore_ascii_case(value));
                (fits, "true or false".to_owned())
            }
            Self::YesNo => (["yes", "no"].contains(&value), "yes or no".to_owned()),
            Self::Text => (!value.is_empty(), "some text".to_owned()),
            Self::TextOrNothing => (true, String::new()),
            Self::OneOf(words) => {
                let fits = words.iter().any(|word| word.eq_ignore_ascii_case(value));
                (fits, words.join(", "))
            }
        };
        if fits { Ok(()) } else { Err(allowed) }
    }
}

/// What a switch is that is off.
const FALSE: &str = "false";

const BOOL: Kind = Kind::Bool;
const TEXT: Kind = Kind::Text;
/// Java's int.
const INT: Kind = Kind::Int(i32::MIN as i64, i32::MAX as i64);
/// Java's int where a negative number would make no sense.
const COUNT: Kind = Kind::Int(0, i32::MAX as i64);
/// Java's long.
const LONG: Kind = Kind::Int(i64::MIN, i64::MAX);
const PORT: Kind = Kind::Int(0, 65_535);
/// zxids of an epoch that count as used; a few must be left, or there would be only elections.
const EPOCH_USED: Kind = Kind::Int(0, 0xFFFF_FF00);
/// The longest tick of which 20 fit the protocol's timeout field.
const TICK_MS: Kind = Kind::Int(1, i32::MAX as i64 / 20);

const FULL: Effect = Effect::Full;
const TLS: Effect = Effect::Missing("TLS");
const SASL: Effect = Effect::Missing("SASL");
const HTTP: Effect = Effect::Missing("the HTTP admin server");
const METRICS: Effect = Effect::Missing("the Prometheus exporter (mntr has the numbers)");
const AUDIT: Effect = Effect::Missing("the audit log");
const THROTTLE: Effect = Effect::Missing("the connection and request throttles");
const LIMITS: Effect = Effect::Missing("the limit on large requests in flight");
const RESTORE: Effect = Effect::Missing("the snapshot and restore commands");
const EMPTY: Effect =
    Effect::Built("missing data is an empty tree only where there is no trace of data");
const LOCAL_SESSIONS: Effect = Effect::Otherwise(FALSE, "the sessions of this server are global");
const READ_ONLY: Effect = Effect::Otherwise(
    FALSE,
    "there is no read-only mode here: without a quorum nobody is served; this only allows the \
     word isro",
);
const RECONFIG: Effect =
    Effect::Otherwise(FALSE, "reconfig is refused here, as where it is disabled");
const OBSERVER_MASTER: Effect =
    Effect::Otherwise("0", "followers serve no observers here: these learn from the leader");
const ORACLE: Effect =
    Effect::Otherwise("", "there is no oracle here: one of two servers alone serves nobody");
const EPOCH_WAIT: Effect =
    Effect::Otherwise("-1", "a leader waits here for its quorum as long as initLimit says");
const SNAPSHOT_SYNC: Effect = Effect::Otherwise(
    FALSE,
    "a learner gets here what it lacks, and a snapshot only where the log is not enough",
);
const PEER_UNIFICATION: Effect = Effect::Otherwise(
    FALSE,
    "there is no TLS here: servers that use it cannot connect to this one",
);
const PEER_SASL: Effect =
    Effect::Otherwise(FALSE, "there is no SASL here: servers do not authenticate each other");
const PEER_SASL_REQUIRED: Effect = Effect::Unsafe(
    FALSE,
    "there is no SASL here, so anybody who reaches its ports could join: set it to false if \
     nobody else can reach them",
);
const PEER_TLS: Effect = Effect::Unsafe(
    FALSE,
    "there is no TLS here, and servers would talk to each other in the clear: set it to false if \
     the network between them is safe, or made safe by a tunnel",
);
const PEER_ADDRESSES: Effect =
    Effect::Built("the addresses of a server are tried one after the other");
const PEER_TIMES: Effect = Effect::Built(
    "cnxTimeout bounds each attempt to connect, initLimit the time until a learner is \
     synchronized; failed attempts are repeated after pauses that double",
);
const PEER_LOAD: Effect = Effect::Built(
    "what learners lack is sent as fast as each of them takes it, to any number at a time",
);
const PEER_LOG: Effect = Effect::Built("acknowledgements are not logged");
const EAGER_ACL: Effect = Effect::Built("the leader checks ACLs when it orders requests");
const HISTORY: Effect = Effect::Built("ringkeeper.historyKb says how much is kept");
const OBSERVER_LIMIT: Effect = Effect::Built("followers serve no observers");
const THREADS: Effect = Effect::Built("requests do not pass through pools of threads");
const CACHES: Effect =
    Effect::Built("replies are written from the tree directly, so none is cached");
const LOG: Effect = Effect::Built("the log sizes its segments and batches by what it measures");
const PURGE: Effect =
    Effect::Built("what no kept snapshot needs is removed after each new snapshot");
const WATCHES: Effect = Effect::Built("watches live in a table per core, which needs no cleaner");
const JVM: Effect = Effect::Built("there is no JVM");
const ALWAYS: Effect = Effect::Always;
const TESTS: Effect = Effect::Built("it exists for ZooKeeper's own tests");
const SOCKETS: Effect = Effect::Built("sockets are set up by the ring");

macro_rules! keys {
    ($($effect:expr => { $($name:literal: $kind:expr,)* })*) => {
        &[$($(Key { name: $name, kind: $kind, effect: $effect },)*)*]
    };
}

/// The settings with a name of their own.
pub const KEYS: &[Key] = keys! {
    FULL => {
        "dataDir": TEXT,
        "dataLogDir": TEXT,
        "datadir.autocreate": BOOL,
        "clientPort": PORT,
        "clientPortAddress": TEXT,
        "clientPortListenBacklog": INT,
        "tickTime": TICK_MS,
        "maxClientCnxns": INT,
        "maxCnxns": INT,
        "minSessionTimeout": INT,
        "maxSessionTimeout": INT,
        "globalOutstandingLimit": INT,
        "jute.maxbuffer": Kind::Int(1_024, PACKET_BYTES_MOST as i64),
        "nio.sessionlessCnxnTimeout": Kind::Int(1, i32::MAX as i64),
        "snapCount": INT,
        "autopurge.snapRetainCount": INT,
        "extendedTypesEnabled": BOOL,
        "emulate353TTLNodes": BOOL,
        "znode.container.checkIntervalMs": Kind::Int(1, i32::MAX as i64),
        "znode.container.maxPerMinute": Kind::Int(1, i32::MAX as i64),
        "znode.container.maxNeverUsedIntervalMs": Kind::Int(0, i64::MAX),
        "enforceQuota": BOOL,
        "skipACL": Kind::YesNo,
        "DigestAuthenticationProvider.enabled": BOOL,
        "DigestAuthenticationProvider.superDigest": TEXT,
        "DigestAuthenticationProvider.digestAlg": TEXT,
        "ensembleAuthName": TEXT,
        "enforce.auth.enabled": BOOL,
        "enforce.auth.schemes": Kind::TextOrNothing,
        "sessionRequireClientSASLAuth": BOOL,
        "4lw.commands.whitelist": Kind::TextOrNothing,
        "fsync.warningthresholdms": LONG,
        "standaloneEnabled": BOOL,
        "dynamicConfigFile": TEXT,
        "version": Kind::Hexadecimal,
        "ringkeeper.cores": Kind::Int(0, CORES_MAX as i64),
        "ringkeeper.backend": Kind::OneOf(&["auto", "io_uring", "epoll"]),
        "ringkeeper.logLevel": TEXT,
        "ringkeeper.memoryLimitMb": Kind::Int(0, 1 << 30),
        "ringkeeper.slowRequestMs": Kind::Int(0, i32::MAX as i64),
        "ringkeeper.stuckAfterMs": Kind::Int(0, i32::MAX as i64),
    }
    FULL => {
        "ringkeeper.historyKb": Kind::Int(0, 16 << 20),
        "ringkeeper.clientGraceMs": Kind::Int(0, i32::MAX as i64),
        "ringkeeper.fastElection": BOOL,
        "ringkeeper.linearizableSync": BOOL,
        "initLimit": COUNT,
        "syncLimit": COUNT,
        "peerType": Kind::OneOf(&["participant", "observer"]),
        "electionAlg": Kind::Int(3, 3),
        "quorumListenOnAllIPs": BOOL,
        "multiAddress.enabled": BOOL,
        "leaderServes": Kind::YesNo,
        "fastleader.minNotificationInterval": COUNT,
        "fastleader.maxNotificationInterval": COUNT,
        "cnxTimeout": COUNT,
        "electionPortBindRetry": COUNT,
        "testingonly.initialZxid": EPOCH_USED,
        "snapshotSizeFactor": Kind::Decimal,
        "db.autocreate": BOOL,
    }
    LOCAL_SESSIONS => { "localSessionsEnabled": BOOL, "localSessionsUpgradingEnabled": BOOL, }
    READ_ONLY => { "readonlymode.enabled": BOOL, }
    RECONFIG => { "reconfigEnabled": BOOL, }
    OBSERVER_MASTER => { "observerMasterPort": PORT, }
    OBSERVER_LIMIT => { "observerMaster.sizeLimit": COUNT, }
    ORACLE => { "oraclePath": TEXT, }
    EPOCH_WAIT => { "leader.maxTimeToWaitForEpoch": INT, "maxTimeToWaitForEpoch": INT, }
    SNAPSHOT_SYNC => { "forceSnapshotSync": BOOL, }
    PEER_TLS => { "sslQuorum": BOOL, }
    PEER_UNIFICATION => { "portUnification": BOOL, }
    PEER_SASL => { "quorum.auth.enableSasl": BOOL, }
    PEER_SASL_REQUIRED => {
        "quorum.auth.learnerRequireSasl": BOOL,
        "quorum.auth.serverRequireSasl": BOOL,
    }
    PEER_ADDRESSES => {
        "multiAddress.reachabilityCheckTimeoutMs": INT,
        "multiAddress.reachabilityCheckEnabled": BOOL,
    }
    PEER_TIMES => {
        "connectToLearnerMasterLimit": COUNT,
        "quorumCnxnTimeoutMs": INT,
        "leaderConnectDelayDuringRetryMs": COUNT,
        "observer.reconnectDelayMs": LONG,
        "observer.election.DelayMs": LONG,
    }
    PEER_LOAD => {
        "leader.maxConcurrentSnapSyncs": COUNT,
        "leader.maxConcurrentDiffSyncs": COUNT,
    }
    PEER_LOG => { "leader.ackLoggingFrequency": COUNT, }
    EAGER_ACL => { "enableEagerACLCheck": BOOL, }
    HISTORY => { "commitLogCount": COUNT, }
    TLS => {
        "secureClientPort": PORT,
        "secureClientPortAddress": TEXT,
        "X509AuthenticationProvider.superUser": TEXT,
        "client.certReload": BOOL,
        "sslQuorumReloadCertFiles": BOOL,
        "client.portUnification": BOOL,
        "fips-mode": BOOL,
        "netty.server.outstandingHandshake.limit": INT,
        "netty.server.earlyDropSecureConnectionHandshakes": BOOL,
    }
    SASL => {
        "superUser": TEXT,
        "SASLAuthenticationProvider.superPassword": TEXT,
        "allowSaslFailedClients": BOOL,
        "letAnySaslUserDoX": TEXT,
        "requireKerberosConfig": BOOL,
        "security.auth_to_local": TEXT,
        "sasl.serverconfig": TEXT,
        "server.principal": TEXT,
        "server.realm": TEXT,
        "kinit": TEXT,
        "quorum.cnxn.threads.size": INT,
    }
    HTTP => {
        "admin.enableServer": BOOL,
        "admin.serverAddress": TEXT,
        "admin.serverPort": PORT,
        "admin.idleTimeout": INT,
        "admin.commandURL": TEXT,
        "admin.portUnification": BOOL,
        "admin.forceHttps": BOOL,
        "admin.needClientAuth": BOOL,
        "admin.httpVersion": INT,
        "IPAuthenticationProvider.usexforwardedfor": BOOL,
    }
    RESTORE => {
        "admin.snapshot.enabled": BOOL,
        "admin.restore.enabled": BOOL,
        "admin.rateLimiterIntervalInMS": LONG,
        "serializeLastProcessedZxid.enabled": BOOL,
    }
    METRICS => {
        "metricsProvider.className": TEXT,
        "pathStats.enabled": BOOL,
        "pathStats.slotCapacity": INT,
        "pathStats.slotDuration": INT,
        "pathStats.maxDepth": INT,
        "pathStats.sampleRate": Kind::Decimal,
        "pathStats.initialDelay": LONG,
        "pathStats.delay": LONG,
        "pathStats.topPathMax": INT,
    }
    AUDIT => { "audit.enable": BOOL, "audit.impl.class": TEXT, }
    THROTTLE => {
        "connection_throttle_tokens": INT,
        "connection_throttle_fill_time": INT,
        "connection_throttle_fill_count": INT,
        "connection_throttle_freeze_time": INT,
        "connection_throttle_drop_increase": Kind::Decimal,
        "connection_throttle_drop_decrease": Kind::Decimal,
        "connection_throttle_decrease_ratio": Kind::Decimal,
        "connection_throttle_weight_enabled": BOOL,
        "connection_throttle_global_session_weight": INT,
        "connection_throttle_renew_session_weight": INT,
        "connection_throttle_local_session_weight": INT,
        "request_throttle_max_requests": INT,
        "request_throttle_stall_time": INT,
        "request_throttle_drop_stale": BOOL,
        "request_stale_latency_check": BOOL,
        "request_stale_connection_check": BOOL,
        "request_throttler.shutdownTimeout": INT,
        "throttled_op_wait_time": INT,
    }
    LIMITS => { "largeRequestMaxBytes": INT, "largeRequestThreshold": INT, }
    ALWAYS => {
        "forceSync": Kind::YesNo,
        "digest.enabled": BOOL,
        "closeSessionTxn.enabled": BOOL,
        "clientTcpKeepAlive": BOOL,
        "tcpKeepAlive": BOOL,
        "leader.nodelay": BOOL,
        "follower.nodelay": BOOL,
        "syncEnabled": BOOL,
        "observer.syncEnabled": BOOL,
    }
    EMPTY => { "snapshot.trust.empty": BOOL, }
    LOG => {
        "flushDelay": LONG,
        "maxWriteQueuePollTime": LONG,
        "maxBatchSize": INT,
        "preAllocSize": LONG,
        "snapSizeLimitInKb": LONG,
        "txnLogSizeLimitInKb": LONG,
        "snapshot.compression.method": Kind::TextOrNothing,
    }
    PURGE => { "autopurge.purgeInterval": INT, }
    THREADS => {
        "commitProcessor.numWorkerThreads": INT,
        "commitProcessor.maxReadBatchSize": INT,
        "commitProcessor.maxCommitBatchSize": INT,
        "commitProcessor.shutdownTimeout": LONG,
        "nio.numSelectorThreads": INT,
        "nio.numWorkerThreads": INT,
        "nio.directBufferBytes": INT,
        "nio.shutdownTimeout": LONG,
        "intBufferStartingSizeBytes": INT,
        "jute.maxbuffer.extrasize": INT,
        "leader.closeSocketAsync": BOOL,
        "learner.closeSocketAsync": BOOL,
        "learner.asyncSending": BOOL,
        "forward_learner_requests_to_commit_processor_disabled": BOOL,
        "follower.skipLearnerRequestToNextProcessor": BOOL,
    }
    SOCKETS => {
        "serverCnxnFactory": TEXT,
        "advancedFlowControl": BOOL,
        "netty.advancedFlowControl.enabled": BOOL,
    }
    CACHES => { "maxResponseCacheSize": INT, "maxGetChildrenResponseCacheSize": INT, }
    WATCHES => {
        "watchManagerName": TEXT,
        "watcherCleanThreadsNum": INT,
        "watcherCleanThreshold": INT,
        "watcherCleanIntervalInSeconds": INT,
        "maxInProcessingDeadWatchers": INT,
        "bitHashCacheSize": INT,
    }
    JVM => {
        "jvm.pause.monitor": BOOL,
        "jvm.pause.sleep.time.ms": LONG,
        "jvm.pause.info-threshold.ms": LONG,
        "jvm.pause.warn-threshold.ms": LONG,
        "messageTracker.Enabled": BOOL,
        "messageTracker.BufferSize": INT,
    }
    TESTS => {
        "test.allowDiscontinuousProposals": BOOL,
        "controllerPort": PORT,
    }
};

/// Settings whose names only begin so.
pub const FAMILIES: &[Key] = keys! {
    FULL => { "server.": TEXT, "group": TEXT, "weight": TEXT, "authProvider.": TEXT, }
    TLS => { "ssl.": Kind::TextOrNothing, }
    SASL => { "superUser.": TEXT, "kerberos.": TEXT, "quorum.auth.": TEXT, }
    METRICS => { "metricsProvider.": Kind::TextOrNothing, }
    JVM => { "jmx.log4j.": Kind::TextOrNothing, }
};

/// The prefix that makes a setting a system property of ZooKeeper's.
const PROPERTY_PREFIX: &str = "zookeeper.";

/// The name of a setting without the prefix that system properties have.
pub fn plain(name: &str) -> &str {
    name.strip_prefix(PROPERTY_PREFIX).unwrap_or(name)
}

/// A whole number, decimal or, behind `0x` or `#`, hexadecimal. Java takes both for a system
/// property, but an octal number behind a mere 0 as well, which is decimal here.
// Compat: java.lang.Long.decode
pub fn number(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = ["0x", "0X", "#"].into_iter().find_map(|prefix| digits.strip_prefix(prefix));
    match prefix {
        Some(digits) if !digits.starts_with(['+', '-']) => {
            i64::from_str_radix(&format!("{sign}{digits}"), 16).ok()
        }
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// Whether this is the whole name of a setting, and not only one of a family.
pub fn is_name(name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name)
}

/// The number that these hexadecimal digits are, if it fits Java's long.
pub fn hexadecimal(digits: &str) -> Option<u64> {
    i64::from_str_radix(digits, 16).ok().and_then(|number| u64::try_from(number).ok())
}

/// The setting called `name`, which has no prefix.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.name == name)
        .or_else(|| FAMILIES.iter().find(|family| name.starts_with(family.name)))
}

/// The known name that `name` was most likely meant to be.
pub fn nearest(name: &str) -> Option<&'static str> {
    const LIKENESS_MIN: f64 = 0.8;
    const LETTERS_MAX: usize = 64;
    if name.len() > LETTERS_MAX {
        return None;
    }
    let name = name.to_lowercase();
    let likeness =
        |key: &Key| strsim::normalized_damerau_levenshtein(&name, &key.name.to_lowercase());
    KEYS.iter()
        .map(|key| (likeness(key), key.name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
