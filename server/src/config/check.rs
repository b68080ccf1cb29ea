//! From settings to a [`Config`]: every value checked, every relation between values, all
//! complaints collected, so that one start shows them all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::auth::{AuthRules, DigestAlgorithm, DigestRules, Enforcement, EnsembleRules};
use engine::replica::ROLLOVER_COUNTER;
use engine::session::TimeoutLimits;

use super::effects;
use super::ensemble::Ensemble;
use super::keys::{self, Effect};
use super::settings::{Note, Problem, Setting, Settings};
use super::{Backend, Config, Containers, MemberSettings};
use crate::four_letter::Whitelist;
use crate::logging;

/// What a start without a configuration file assumes.
const TRIAL_DATA_DIR: &str = "./ringkeeper-data";

/// ZooKeeper's defaults.
const TICK_MS: i64 = 3_000;
const CLIENT_CNXNS_MAX: i64 = 60;
const OUTSTANDING_MAX: i64 = 1_000;
const SESSIONLESS_TIMEOUT_MS: i64 = 10_000;
const SNAP_RETAIN_COUNT: i64 = 3;
const CONTAINER_CHECK_MS: i64 = 60_000;
const CONTAINERS_PER_MINUTE: i64 = 10_000;
const SYNC_WARNING_MS: i64 = 1_000;
const CONNECT_TIMEOUT_MS: i64 = 5_000;
const NOTIFICATION_MS_MIN: i64 = 200;
const NOTIFICATION_MS_MAX: i64 = 60_000;
const BIND_ATTEMPTS: i64 = 3;
const STUCK_AFTER_MS: i64 = 10_000;
const HISTORY_KB: i64 = 64 << 10;
const SNAPSHOT_SIZE_FACTOR: f64 = 0.33;

/// Twice ZooKeeper's: see `docs/decisions/004-restart.md`.
const SNAP_COUNT: i64 = 200_000;

/// Where ZooKeeper keeps the classes that `authProvider.N` names.
const PROVIDER_PACKAGE: &str = "org.apache.zookeeper.server.auth";

/// The largest server id that leaves room for extended types in an ephemeral owner.
const EXTENDED_SERVER_ID_MAX: i64 = 254;

/// Works through the settings of one start.
pub(super) struct Checker<'a> {
    pub(super) settings: &'a Settings,
    /// No file and no port was given: the assumptions for trying ringkeeper out hold.
    pub(super) is_trial: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<Note>,
    /// About keys that nobody knows: one of them may be what a complaint misses.
    pub(super) unknown: Vec<Note>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(settings: &'a Settings, is_trial: bool) -> Self {
        let notes = settings.notes.clone();
        Self { settings, is_trial, problems: Vec::new(), notes, unknown: Vec::new() }
    }

    /// The configuration; worth something only if no problem was found.
    pub(super) fn config(&mut self) -> Config {
        self.check_each();
        let tick_ms = self.int("tickTime", TICK_MS) as i32;
        let extended_types = self.bool("extendedTypesEnabled", false);
        let data_dir = self.data_dir();
        let log_level = self.log_level();
        Config {
            data_log_dir: self.text("dataLogDir").map_or_else(|| data_dir.clone(), PathBuf::from),
            data_dir,
            makes_data_dirs: self.bool("datadir.autocreate", true),
            listen: self.listen(),
            listen_backlog: self.int("clientPortListenBacklog", -1) as i32,
            tick_ms,
            timeouts: self.timeouts(tick_ms),
            client_cnxns_max: positive(self.int("maxClientCnxns", CLIENT_CNXNS_MAX)),
            cnxns_max: positive(self.int("maxCnxns", 0)),
            outstanding_max: self.int("globalOutstandingLimit", OUTSTANDING_MAX).max(0) as u32,
            packet_bytes_max: self
                .int("jute.maxbuffer", engine::limits::PACKET_BYTES_MAX_DEFAULT as i64)
                as usize,
            sessionless_timeout: self.ms("nio.sessionlessCnxnTimeout", SESSIONLESS_TIMEOUT_MS),
            snap_count: self.int("snapCount", SNAP_COUNT).max(2) as u32,
            snapshots_kept: self.snapshots_kept(),
            extended_types,
            emulate_353_ttl: self.bool("emulate353TTLNodes", false),
            containers: self.containers(),
            enforce_quota: self.bool("enforceQuota", false),
            local_sessions: self.bool("localSessionsEnabled", false),
            skip_acl: self.text("skipACL") == Some("yes"),
            auth: self.auth(),
            whitelist: self.whitelist(),
            sync_warning: self.ms("fsync.warningthresholdms", SYNC_WARNING_MS),
            slow_request: positive(self.int("ringkeeper.slowRequestMs", SYNC_WARNING_MS))
                .map(|ms| Duration::from_millis(u64::from(ms))),
            stuck_after: positive(self.int("ringkeeper.stuckAfterMs", STUCK_AFTER_MS))
                .map(|ms| Duration::from_millis(u64::from(ms))),
            cores: positive(self.int("ringkeeper.cores", 0)).map(|cores| cores as usize),
            backend: self.backend(),
            log_level,
            memory_bytes_max: positive(self.int("ringkeeper.memoryLimitMb", 0))
                .map(|megabytes| u64::from(megabytes) << 20),
            server_id: None,
            standalone_enabled: self.bool("standaloneEnabled", true),
            ensemble: self.ensemble(),
            member: self.member(),
            notes: Vec::new(),
        }
    }

    /// Looks at each setting alone: is it known, is its value of the right kind, does it matter?
    fn check_each(&mut self) {
        for setting in self.settings.iter() {
            let Some(key) = keys::find(&setting.key) else {
                self.unknown.push(effects::unknown(setting));
                continue;
            };
            // What does nothing may also be empty: the note says that it does nothing.
            let is_idle = matches!(key.effect, Effect::Missing(_) | Effect::Built(_));
            if let Err(allowed) = key.kind.check(&setting.value)
                && !(is_idle && setting.value.is_empty())
            {
                self.problems.push(setting.problem(format!("must be {allowed}")));
                continue;
            }
            self.notes.extend(effects::note(setting, key));
        }
    }

    /// How this server takes part in its ensemble.
    fn member(&self) -> MemberSettings {
        MemberSettings {
            init_limit: positive(self.int("initLimit", 0)).unwrap_or(1),
            sync_limit: positive(self.int("syncLimit", 0)).unwrap_or(1),
            connect_timeout: self.ms("cnxTimeout", CONNECT_TIMEOUT_MS),
            notification_interval_min: self
                .ms("fastleader.minNotificationInterval", NOTIFICATION_MS_MIN),
            notification_interval_max: self
                .ms("fastleader.maxNotificationInterval", NOTIFICATION_MS_MAX),
            is_observer: self
                .text("peerType")
                .is_some_and(|role| role.eq_ignore_ascii_case("observer")),
            leader_serves: self.text("leaderServes") != Some("no"),
            listens_everywhere: self.bool("quorumListenOnAllIPs", false),
            bind_attempts_max: positive(self.int("electionPortBindRetry", BIND_ATTEMPTS)),
            begins_empty: self.bool("db.autocreate", false),
            fast_election: self.bool("ringkeeper.fastElection", true),
            linearizable_sync: self.bool("ringkeeper.linearizableSync", true),
            history_bytes: (self.int("ringkeeper.historyKb", HISTORY_KB) as usize) << 10,
            log_share: self.log_share(),
            rollover_counter: self.rollover_counter(),
            grace: self
                .settings
                .get("ringkeeper.clientGraceMs")
                .map(|_| self.ms("ringkeeper.clientGraceMs", 0)),
        }
    }

    /// ZooKeeper counts on from this number in each epoch, up to the last one that there is. Here
    /// zxids have no gaps: as many are used, from 1 on.
    // Compat: Leader.lead, Leader.propose
    fn rollover_counter(&self) -> u32 {
        let used = u32::try_from(self.int("testingonly.initialZxid", 0)).unwrap_or(0);
        ROLLOVER_COUNTER.min(u32::MAX - used)
    }

    // Compat: ZKDatabase's constructor, isTxnLogSyncEnabled, getProposalsFromTxnLog
    fn log_share(&self) -> Option<f64> {
        let factor = self.text("snapshotSizeFactor").and_then(|text| text.parse().ok());
        match factor.filter(|factor| *factor <= 1.0).unwrap_or(SNAPSHOT_SIZE_FACTOR) {
            factor if factor < 0.0 => None,
            0.0 => Some(f64::INFINITY),
            factor => Some(factor),
        }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.settings.get(key).map(|setting| setting.value.as_str())
    }

    /// A setting whose value is of the key's kind; that of any other was reported already.
    pub(super) fn valid(&self, key: &str) -> Option<&'a Setting> {
        self.settings.get(key).filter(|setting| {
            keys::find(key).is_some_and(|key| key.kind.check(&setting.value).is_ok())
        })
    }

    /// A number; `default` also where the value is no number.
    pub(super) fn int(&self, key: &str, default: i64) -> i64 {
        self.valid(key).and_then(|setting| keys::number(&setting.value)).unwrap_or(default)
    }

    fn ms(&self, key: &str, default: i64) -> Duration {
        Duration::from_millis(self.int(key, default).max(0).cast_unsigned())
    }

    fn bool(&self, key: &str, default: bool) -> bool {
        self.text(key).map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }

    fn log_level(&mut self) -> String {
        let Some(setting) = self.valid("ringkeeper.logLevel") else { return "info".to_owned() };
        if let Err(reason) = logging::check(&setting.value) {
            self.problems.push(setting.problem(reason));
        }
        setting.value.clone()
    }

    fn data_dir(&mut self) -> PathBuf {
        if self.text("dataDir").is_none() && !self.is_trial {
            self.problems.push(Problem::missing("dataDir", "is not set"));
        }
        PathBuf::from(self.text("dataDir").unwrap_or(TRIAL_DATA_DIR))
    }

    fn timeouts(&mut self, tick_ms: i32) -> TimeoutLimits {
        let default = TimeoutLimits::of_tick(tick_ms);
        let given = |key: &str, default: i32| match self.int(key, -1) as i32 {
            -1 => default,
            ms => ms,
        };
        let limits = TimeoutLimits {
            min_ms: given("minSessionTimeout", default.min_ms),
            max_ms: given("maxSessionTimeout", default.max_ms),
        };
        let settings = ["minSessionTimeout", "maxSessionTimeout"].map(|key| self.settings.get(key));
        if let Some(setting) = settings.into_iter().flatten().next()
            && limits.min_ms > limits.max_ms
        {
            let TimeoutLimits { min_ms, max_ms } = limits;
            let reason = format!("the shortest timeout ({min_ms}) exceeds the longest ({max_ms})");
            self.problems.push(setting.problem(reason));
        }
        limits
    }

    /// How many snapshots stay when old ones go, which they do after each new one.
    fn snapshots_kept(&mut self) -> u32 {
        let retain = self.int("autopurge.snapRetainCount", SNAP_RETAIN_COUNT);
        if retain < SNAP_RETAIN_COUNT {
            // Compat: QuorumPeerConfig.MIN_SNAP_RETAIN_COUNT
            let text = "autopurge.snapRetainCount is raised to 3, the fewest that are kept";
            self.notes.push(Note::warn(text.to_owned()));
        }
        // There, old ones stay for ever without an interval, which is the default. One who says so
        // may rely on it.
        if self.text("autopurge.purgeInterval").is_some_and(|value| value == "0") {
            let text = "autopurge.purgeInterval=0 keeps nothing here: old snapshots are removed \
                        after each new one; set autopurge.snapRetainCount to keep more";
            self.notes.push(Note::warn(text.to_owned()));
        }
        retain.max(SNAP_RETAIN_COUNT) as u32
    }

    fn containers(&self) -> Containers {
        let unused_ms = self.int("znode.container.maxNeverUsedIntervalMs", 0);
        Containers {
            check_interval: self.ms("znode.container.checkIntervalMs", CONTAINER_CHECK_MS),
            per_minute_max: self.int("znode.container.maxPerMinute", CONTAINERS_PER_MINUTE) as u32,
            never_used_max: (unused_ms > 0)
                .then(|| Duration::from_millis(unused_ms.cast_unsigned())),
        }
    }

    fn auth(&mut self) -> AuthRules {
        let digest = self.bool("DigestAuthenticationProvider.enabled", true);
        let rules = AuthRules {
            digest: digest.then(|| self.digest()),
            ensemble: self.ensemble_scheme(),
            enforcement: Enforcement::from_settings(
                self.bool("sessionRequireClientSASLAuth", false),
                self.bool("enforce.auth.enabled", false),
                self.text("enforce.auth.schemes").unwrap_or_default(),
            ),
        };
        // Compat: AuthenticationHelper.validateConfiguredProperties
        let enforced = rules.enforcement.schemes();
        let switch = ["sessionRequireClientSASLAuth", "enforce.auth.enabled"];
        let switch = switch.into_iter().find(|key| self.bool(key, false));
        if let Some(setting) = switch.and_then(|key| self.settings.get(key)) {
            let missing = enforced.unwrap_or_default().iter().find(|name| !rules.offers(name));
            if enforced.is_some_and(<[_]>::is_empty) {
                let reason = "enforce.auth.schemes must name at least one scheme";
                self.problems.push(setting.problem(reason));
            } else if let Some(scheme) = missing {
                let reason = format!("the scheme {scheme} is not available here");
                self.problems.push(setting.problem(reason));
            }
        }
        rules
    }

    fn digest(&mut self) -> DigestRules {
        let algorithm = match self.settings.get("DigestAuthenticationProvider.digestAlg") {
            None => DigestAlgorithm::default(),
            Some(setting) => DigestAlgorithm::from_name(&setting.value).unwrap_or_else(|| {
                let reason = format!("must be one of {}", DigestAlgorithm::NAMES);
                self.problems.push(setting.problem(reason));
                DigestAlgorithm::default()
            }),
        };
        let super_digest = self.text("DigestAuthenticationProvider.superDigest");
        DigestRules { algorithm, super_digest: super_digest.map(str::to_owned) }
    }

    /// Looks through the providers that are configured in addition to ip and digest.
    fn ensemble_scheme(&mut self) -> Option<EnsembleRules> {
        let mut is_ensemble = false;
        for setting in self.settings.family("authProvider.") {
            match setting.value.rsplit('.').next() {
                Some("EnsembleAuthenticationProvider") => is_ensemble = true,
                Some("DigestAuthenticationProvider" | "IPAuthenticationProvider") => {}
                _ => self.notes.push(Note::warn(format!(
                    "{}: {}={}: there is no such provider here; clients cannot use its scheme",
                    setting.origin, setting.key, setting.value
                ))),
            }
        }
        let names = self.text("ensembleAuthName").map(EnsembleRules::from_setting);
        if names.is_some() && !is_ensemble {
            let text = format!(
                "ensembleAuthName has no effect without \
                 authProvider.1={PROVIDER_PACKAGE}.EnsembleAuthenticationProvider"
            );
            self.notes.push(Note::warn(text));
        }
        is_ensemble.then(|| names.unwrap_or_default())
    }

    fn whitelist(&mut self) -> Whitelist {
        let read_only_mode = self.bool("readonlymode.enabled", false);
        let setting = self.settings.get("4lw.commands.whitelist");
        let (whitelist, unknown) =
            Whitelist::from_setting(self.text("4lw.commands.whitelist"), read_only_mode);
        if let Some(setting) = setting {
            self.notes.extend(unknown.iter().map(|word| {
                Note::warn(format!("{}: {word:?} is no four-letter word", setting.origin))
            }));
        }
        whitelist
    }

    fn backend(&self) -> Option<Backend> {
        match self.text("ringkeeper.backend")?.to_ascii_lowercase().as_str() {
            "io_uring" => Some(Backend::IoUring),
            "epoll" => Some(Backend::Epoll),
            _ => None,
        }
    }

    fn ensemble(&mut self) -> Ensemble {
        let several = self.bool("multiAddress.enabled", false);
        let version = self.version();
        Ensemble::read(self.settings, several, version, &mut self.problems)
    }

    /// The version of the list of members, as reconfig leaves it: the end of the dynamic file's
    /// name, if that is a hexadecimal number; without such a file, a setting.
    // Compat: QuorumPeerConfig.parse, getVersionFromFilename
    fn version(&mut self) -> u64 {
        let setting = self.settings.get("version");
        let Some(file) = self.text("dynamicConfigFile") else {
            return setting.and_then(|setting| keys::hexadecimal(&setting.value)).unwrap_or(0);
        };
        if let Some(setting) = setting {
            let end = "the end of the dynamicConfigFile's name says it, as in zoo.cfg.dynamic.1a";
            if setting.origin.is_in(Path::new(file)) {
                self.problems.push(setting.problem(format!("must not stand there: {end}")));
            } else {
                let Setting { key, value, origin } = setting;
                let text = format!("{origin}: {key}={value} has no effect: {end}");
                self.notes.push(Note::warn(text));
            }
        }
        file.rsplit_once('.').and_then(|(_, end)| keys::hexadecimal(end)).unwrap_or(0)
    }

    /// What must fit together once the server's own id is known.
    // Compat: QuorumPeerConfig.parseDynamicConfig, setupClientPort and checkValidity
    pub(super) fn check_whole(&mut self, config: &mut Config) {
        let voters = config.ensemble.voters().count();
        let observers = config.ensemble.members.len() - voters;
        if voters == 0 && !config.standalone_enabled {
            let reason = "is false, so there must be at least one server.N line";
            self.problems.push(Problem::missing("standaloneEnabled", reason));
        }
        if observers > 0 && (voters == 0 || voters == 1 && config.standalone_enabled) {
            let reason = "lines name observers, but not enough servers that vote";
            self.problems.push(Problem::missing("server.N", reason));
        }
        let me = config.server_id.and_then(|id| config.ensemble.members.get(&id));
        if let Some((host, port)) = me.and_then(|me| me.client.clone()) {
            self.join_client_address(config, &host, port);
        }
        if config.listen.is_none() && self.problems.is_empty() {
            self.problems.push(match self.settings.get("secureClientPort") {
                Some(setting) => setting.problem(
                    "there is no TLS here, so nobody could connect: set clientPort, for \
                     connections in the clear",
                ),
                None => Problem::missing("clientPort", "is not set"),
            });
        }
        if let Some(id) = config.member_id()
            && config.extended_types
            && id > EXTENDED_SERVER_ID_MAX
        {
            let reason = format!("needs server ids of at most {EXTENDED_SERVER_ID_MAX}, not {id}");
            self.problems.push(Problem::missing("extendedTypesEnabled", reason));
        }
        if config.is_distributed() {
            self.check_member(config);
            for key in ["initLimit", "syncLimit"] {
                if self.int(key, 0) == 0 {
                    self.problems.push(Problem::missing(key, "is not set"));
                }
            }
            let is_wrong = self.problems.iter().any(|problem| problem.key == "myid");
            if config.server_id.is_none() && !is_wrong {
                let path = config.data_dir.join("myid");
                let reason = format!("is missing: {} must hold this server's id", path.display());
                self.problems.push(Problem::missing("myid", reason));
            }
        } else if !config.ensemble.members.is_empty() && voters > 0 {
            // Compat: QuorumPeerMain runs such a server standalone.
            let text = "only one server is configured, so this runs standalone";
            self.notes.push(Note::warn(text.to_owned()));
        }
    }

    /// What matters to a member only.
    fn check_member(&mut self, config: &mut Config) {
        for setting in self.settings.iter() {
            match keys::find(&setting.key).map(|key| effects::for_member(setting, key)) {
                Some(Err(problem)) => self.problems.push(problem),
                Some(Ok(note)) => self.notes.extend(note),
                None => {}
            }
        }
        let me = config.server_id.and_then(|id| config.ensemble.members.get(&id));
        // Compat: QuorumPeerConfig.setupPeerType
        let is_observer = me.is_some_and(|me| me.is_observer);
        if let Some(Setting { key, value, origin }) = self.settings.get("peerType")
            && config.member.is_observer != is_observer
        {
            let text = format!("{origin}: {key}={value}: the line server.N of this server counts");
            self.notes.push(Note::warn(text));
        }
        config.member.is_observer = is_observer;
        if self.bool("db.autocreate", false) {
            let text = "db.autocreate=true lets this server vote while it is empty, also after it \
                        has lost its data: take it out when the ensemble has begun";
            self.notes.push(Note::warn(text.to_owned()));
        }
    }
}

fn positive(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|&number| number > 0)
}
