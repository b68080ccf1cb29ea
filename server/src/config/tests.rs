//! Tests of the configuration as a whole: files in, a `Config` or complaints out.

use engine::auth::{DigestAlgorithm, EnsembleRules};
use engine::replica::ROLLOVER_COUNTER;
use tempfile::TempDir;

use super::*;
use crate::four_letter::Word;

mod members;

/// A directory that is gone after the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// Loads `text` as a `zoo.cfg`, after a line that sets the data directory.
fn load(text: &str) -> Result<Config, String> {
    load_with_id(text, None)
}

fn load_with_id(text: &str, my_id: Option<&str>) -> Result<Config, String> {
    let folder = Folder::new();
    if let Some(id) = my_id {
        folder.write("myid", id);
    }
    let text = format!("dataDir={}\n{text}", folder.0.path().display());
    let file = Some(folder.write("zoo.cfg", &text));
    let loaded = Config::load(&Sources { file, ..Sources::default() });
    loaded.map_err(|error| error.to_string().replace(&*folder.0.path().to_string_lossy(), "FOLDER"))
}

#[track_caller]
fn check_refused(text: &str, complaint: &str) {
    let text = format!("clientPort=0\n{text}");
    assert_eq!(load(&text).unwrap_err(), complaint);
}

#[track_caller]
fn check_note(text: &str, level: tracing::Level, part: &str) {
    let config = load(&format!("clientPort=0\n{text}")).unwrap();
    let found = config.notes.iter().any(|note| note.level == level && note.text.contains(part));
    assert!(found, "{part:?} is not in {:#?}", config.notes);
}

#[test]
fn without_anything_it_serves_on_the_loopback() {
    let config = Config::load(&Sources::default()).unwrap();
    let host = Some("127.0.0.1".parse().unwrap());
    assert_eq!(config.listen, Some(Listen { host, port: 2181 }));
    assert_eq!(config.data_dir, Path::new("./ringkeeper-data"));
    assert_eq!(config.timeouts, TimeoutLimits { min_ms: 6_000, max_ms: 60_000 });
    assert_eq!((config.client_cnxns_max, config.cnxns_max), (Some(60), None));
    assert_eq!((config.packet_bytes_max, config.outstanding_max), (1_048_575, 1_000));
    assert!(!config.is_distributed());
    assert_eq!(config.notes, []);
}

#[test]
fn a_file_is_read_with_zookeepers_defaults() {
    let config = load("tickTime=2000\nclientPort=2181\ninitLimit=5\nsyncLimit=2").unwrap();
    assert_eq!(config.listen, Some(Listen { host: None, port: 2181 }));
    assert_eq!(config.timeouts, TimeoutLimits { min_ms: 4_000, max_ms: 40_000 });
    assert_eq!(config.data_log_dir, config.data_dir);
    assert_eq!((config.snapshots_kept, config.snap_count), (3, 200_000));
    assert!(config.auth.digest.is_some() && !config.skip_acl && !config.extended_types);
    assert_eq!(config.notes, []);
}

#[test]
fn the_settings_that_matter_arrive() {
    let config = load(
        "clientPort 2181\nclientPortAddress: 127.0.0.1\ndataLogDir=/l\nmaxClientCnxns=0\n\
         maxCnxns=7\nminSessionTimeout=100\nmaxSessionTimeout=-1\nzookeeper.snapCount=9\n\
         autopurge.snapRetainCount=5\nautopurge.purgeInterval=1\nextendedTypesEnabled=TRUE\n\
         skipACL=yes\n4lw.commands.whitelist=mntr, ruok\nznode.container.checkIntervalMs=100\n\
         DigestAuthenticationProvider.digestAlg=SHA-256\nringkeeper.backend=epoll\n\
         ringkeeper.memoryLimitMb=2\nringkeeper.slowRequestMs=0\nringkeeper.cores=3\n\
         DigestAuthenticationProvider.superDigest=super:x=\njute.maxbuffer=4194304",
    )
    .unwrap();
    assert_eq!(config.listen.unwrap().host, Some("127.0.0.1".parse().unwrap()));
    assert_eq!(config.data_log_dir, Path::new("/l"));
    assert_eq!((config.client_cnxns_max, config.cnxns_max), (None, Some(7)));
    assert_eq!(config.timeouts, TimeoutLimits { min_ms: 100, max_ms: 60_000 });
    assert_eq!(config.snapshots_kept, 5);
    assert_eq!((config.snap_count, config.packet_bytes_max), (9, 4_194_304));
    assert!(config.extended_types && config.skip_acl && config.whitelist.allows(Word::Mntr));
    assert_eq!(config.containers.check_interval, Duration::from_millis(100));
    let digest = config.auth.digest.unwrap();
    assert_eq!(digest.algorithm, DigestAlgorithm::Sha256);
    assert_eq!(digest.super_digest.as_deref(), Some("super:x="));
    assert_eq!((config.backend, config.cores), (Some(Backend::Epoll), Some(3)));
    assert_eq!((config.memory_bytes_max, config.slow_request), (Some(2 << 20), None));
}

#[test]
fn an_epoch_ends_as_many_zxids_earlier_as_zookeeper_skips() {
    let counter =
        |text: &str| load(&format!("clientPort=0\n{text}")).unwrap().member.rollover_counter;
    assert_eq!(counter(""), ROLLOVER_COUNTER);
    assert_eq!(counter("testingonly.initialZxid=100"), ROLLOVER_COUNTER);
    assert_eq!(counter("zookeeper.testingonly.initialZxid=4294947295"), 20_000);
    check_refused(
        "testingonly.initialZxid=4294967295",
        "FOLDER/zoo.cfg, line 3: testingonly.initialZxid=4294967295: must be a whole number from \
         0 to 4294967040",
    );
}

#[test]
fn how_long_connections_outlive_a_leader_may_be_said() {
    let grace = |text: &str| load_member(text).unwrap().member.grace;
    assert_eq!(grace(""), None, "it follows from other settings");
    assert_eq!(grace("ringkeeper.clientGraceMs=0"), Some(Duration::ZERO), "as ZooKeeper does");
    assert_eq!(grace("ringkeeper.clientGraceMs=1500"), Some(Duration::from_millis(1500)));
    check_refused(
        "ringkeeper.clientGraceMs=-1",
        "FOLDER/zoo.cfg, line 3: ringkeeper.clientGraceMs=-1: must be a whole number from 0 to \
         2147483647",
    );
}

#[test]
fn wrong_values_are_named_with_file_line_and_what_is_allowed() {
    let number = "must be a whole number from";
    check_refused(
        "tickTime=fast",
        &format!("FOLDER/zoo.cfg, line 3: tickTime=fast: {number} 1 to 107374182"),
    );
    check_refused(
        "\n\nreconfigEnabled=1",
        "FOLDER/zoo.cfg, line 5: reconfigEnabled=1: must be true or false",
    );
    check_refused("skipACL=true", "FOLDER/zoo.cfg, line 3: skipACL=true: must be yes or no");
    check_refused(
        "minSessionTimeout=9\nmaxSessionTimeout=8",
        "FOLDER/zoo.cfg, line 3: minSessionTimeout=9: the shortest timeout (9) \
         exceeds the longest (8)",
    );
    check_refused(
        "DigestAuthenticationProvider.digestAlg=rot13",
        "FOLDER/zoo.cfg, line 3: DigestAuthenticationProvider.digestAlg=rot13: must be one of \
         SHA1, SHA-224, SHA-256, SHA-384, SHA-512, SHA-512/224, SHA-512/256",
    );
    check_refused(
        "x=\\uzzzz",
        "FOLDER/zoo.cfg, line 3: \\u needs four hexadecimal digits after it \
         (write \\\\ for a backslash)",
    );
}

#[test]
fn all_complaints_come_at_once() {
    let complaint = load("clientPort=x\ntickTime=0").unwrap_err();
    assert_eq!(complaint.lines().count(), 2, "{complaint}");
}

#[test]
fn what_must_be_there_is_asked_for() {
    let complaint = "configuration: clientPort is not set";
    assert_eq!(load("").unwrap_err(), complaint);
    let folder = Folder::new();
    let file = Some(folder.write("zoo.cfg", "clientPort=1"));
    let error = Config::load(&Sources { file, ..Sources::default() }).unwrap_err();
    assert_eq!(error.to_string(), "configuration: dataDir is not set");
    let file = Some(folder.0.path().join("missing.cfg"));
    let error = Config::load(&Sources { file, ..Sources::default() }).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("missing.cfg: No such file"));
}

#[test]
fn the_command_line_counts_more_than_the_file() {
    let folder = Folder::new();
    let text = format!("dataDir={}\nclientPort=1\ntickTime=x", folder.0.path().display());
    let set = |key: &str, value: &str| Argument {
        option: format!("-D {key}"),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let sources = Sources {
        file: Some(folder.write("zoo.cfg", &text)),
        arguments: vec![set("tickTime", "7"), set("zookeeper.clientPort", "2")],
        is_short_form: false,
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.tick_ms, config.listen.unwrap().port), (7, 2));
    let arguments = vec![set("tickTime", "slow")];
    let error = Config::load(&Sources { arguments, ..Sources::default() }).unwrap_err();
    assert!(error.to_string().starts_with("-D tickTime: tickTime=slow: must be"));
}

#[test]
fn unknown_settings_are_a_warning_each_with_a_guess() {
    let level = tracing::Level::WARN;
    check_note("tickTimes=1", level, "line 3: tickTimes is not a known setting");
    check_note("tickTimes=1", level, "did you mean tickTime?");
    check_note("colour=red\nshape=round", level, "line 4: shape is not a known setting");
}

#[test]
fn settings_without_effect_say_so() {
    check_note("jvm.pause.monitor=true", tracing::Level::INFO, "there is no JVM");
    check_note("ssl.keyStore.location=x", tracing::Level::WARN, "TLS is missing here");
    check_note("forceSync=no", tracing::Level::WARN, "it is always on");
    check_note("4lw.commands.whitelist=stats", tracing::Level::WARN, "\"stats\" is no four-letter");
    check_note("snapCount=1\nsnapCount=2", tracing::Level::WARN, "line 4: snapCount is set again");
    check_note("authProvider.1=a.b.SASLAuthenticationProvider", tracing::Level::WARN, "no such");
    let quiet = load("clientPort=0\nadmin.enableServer=false\nforceSync=yes\nsyncLimit=2");
    assert_eq!(quiet.unwrap().notes, []);
}

#[test]
fn what_does_nothing_may_be_empty() {
    check_note("superUser=", tracing::Level::WARN, "superUser has no effect: SASL is missing here");
    check_note("watchManagerName=", tracing::Level::INFO, "watchManagerName has no effect");
    check_refused("dataLogDir=", "FOLDER/zoo.cfg, line 3: dataLogDir=: must be some text");
    check_refused(
        "clientPortAddress=",
        "FOLDER/zoo.cfg, line 3: clientPortAddress=: must be some text",
    );
}

#[test]
fn a_log_level_that_is_none_is_refused() {
    check_refused(
        "ringkeeper.logLevel=inof",
        "FOLDER/zoo.cfg, line 3: ringkeeper.logLevel=inof: \"inof\" is no level; allowed: error, \
         warn, info, debug, trace, off, or a list like info,server::ring=debug",
    );
    check_refused(
        "ringkeeper.logLevel=",
        "FOLDER/zoo.cfg, line 3: ringkeeper.logLevel=: must be some text",
    );
    assert_eq!(load("clientPort=0\nringkeeper.logLevel=WARN").unwrap().log_level, "WARN");
}

#[test]
fn only_settings_of_the_data_keep_a_tool_from_it() {
    let folder = Folder::new();
    let load = |text: &str| {
        let file = Some(folder.write("zoo.cfg", text));
        Config::load_for_data(&Sources { file, ..Sources::default() })
    };
    folder.write("myid", "two");
    let wrong = "secureClientPort=1\ntickTime=x\nclientPortAddress=\nsslQuorum=true\n\
                 dynamicConfigFile=/nowhere\nserver.1=a:1:2\nserver.2=b\ncolour=red";
    let config = load(&format!("dataDir=/d\nextendedTypesEnabled=true\n{wrong}")).unwrap();
    assert!(config.data_dir == Path::new("/d") && config.extended_types);
    assert_eq!(config.listen, None, "no port was said");
    let [note] = &config.notes[..] else { panic!("{:#?}", config.notes) };
    assert!(note.text.contains("line 10: colour is not a known setting"), "{note:?}");
    let refused = |text: &str| load(text).unwrap_err().to_string();
    assert_eq!(refused("clientPort=x"), "configuration: dataDir is not set");
    let error = refused("dataDir=/d\ndataLogDir=\nextendedTypesEnabled=1");
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn authentication_that_cannot_be_enforced_is_refused() {
    check_refused(
        "enforce.auth.enabled=true",
        "FOLDER/zoo.cfg, line 3: enforce.auth.enabled=true: enforce.auth.schemes must name at \
         least one scheme",
    );
    check_refused(
        "enforce.auth.enabled=true\nenforce.auth.schemes=digest,x509",
        "FOLDER/zoo.cfg, line 3: enforce.auth.enabled=true: the scheme x509 is not available here",
    );
    check_refused(
        "sessionRequireClientSASLAuth=true",
        "FOLDER/zoo.cfg, line 3: sessionRequireClientSASLAuth=true: the scheme sasl is not \
         available here",
    );
    let config = load("clientPort=0\nenforce.auth.enabled=true\nenforce.auth.schemes=digest");
    assert_eq!(config.unwrap().auth.enforcement.schemes().unwrap(), ["digest"]);
}

#[test]
fn the_ensemble_scheme_needs_its_provider() {
    let provider = "authProvider.1=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider";
    let config = load(&format!("clientPort=0\n{provider}\nensembleAuthName=a,b")).unwrap();
    assert_eq!(config.auth.ensemble, Some(EnsembleRules::from_setting("a,b")));
    check_note("ensembleAuthName=a", tracing::Level::WARN, "has no effect without authProvider");
}

#[test]
fn an_ensemble_is_read_and_its_own_id_too() {
    let servers = "server.1=a:1:2;2181\nserver.2=b:1:2\nserver.3=c:1:2:observer\n";
    let text = format!("clientPort=2181\ninitLimit=5\nsyncLimit=2\n{servers}");
    let config = load_with_id(&text, Some("2\n")).unwrap();
    assert!(config.is_distributed());
    assert_eq!((config.server_id, config.ensemble.members.len()), (Some(2), 3));
    assert_eq!(config.ensemble.voters().collect::<Vec<_>>(), [1, 2]);
    let missing = load(&format!("clientPort=2181\n{servers}")).unwrap_err();
    let expected = "configuration: initLimit is not set\nconfiguration: syncLimit is not set\n\
                    configuration: myid is missing: FOLDER/myid must hold this server's id";
    assert_eq!(missing, expected);
    let wrong = load_with_id(&text, Some("two")).unwrap_err();
    assert!(wrong.starts_with("FOLDER/myid, line 1: myid must be a number"), "{wrong}");
}

/// Loads `text` as the configuration of an ensemble's second server.
fn load_member(text: &str) -> Result<Config, String> {
    let servers = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2:observer";
    let head = format!("clientPort=0\ninitLimit=5\nsyncLimit=2\n{servers}");
    load_with_id(&format!("{head}\n{text}"), Some("2"))
}

#[test]
fn a_member_is_told_what_happens_in_place_of_what_is_missing() {
    for (text, part) in [
        ("quorum.auth.enableSasl=true", "servers do not authenticate each other"),
        ("quorum.auth.learner.saslLoginContext=x", "has no effect: SASL is missing here"),
        ("portUnification=true", "servers that use it cannot connect"),
        ("localSessionsEnabled=true", "the sessions of this server are global"),
        ("localSessionsUpgradingEnabled=true", "the sessions of this server are global"),
        ("readonlymode.enabled=true", "without a quorum nobody is served"),
        ("reconfigEnabled=true", "reconfig is refused here"),
        ("observerMasterPort=2191", "followers serve no observers here"),
        ("oraclePath=/oracle", "there is no oracle here"),
        ("leader.maxTimeToWaitForEpoch=500", "as long as initLimit says"),
        ("forceSnapshotSync=true", "a learner gets here what it lacks"),
        ("syncEnabled=false", "syncEnabled=false has no effect: it is always on"),
        ("db.autocreate=true", "also after it has lost its data"),
        ("peerType=observer", "the line server.N of this server counts"),
    ] {
        let config = load_member(text).unwrap();
        let [note] = &config.notes[..] else { panic!("{text}: {:#?}", config.notes) };
        assert_eq!(note.level, tracing::Level::WARN, "{text}");
        assert!(note.text.contains(part), "{part:?} is not in {note:?}");
        assert!(!config.member.is_observer);
    }
    let off = "quorum.auth.enableSasl=false\nsslQuorum=False\nquorum.auth.serverRequireSasl=false\n\
               localSessionsEnabled=false\nreadonlymode.enabled=false\nreconfigEnabled=FALSE\n\
               observerMasterPort=0\nleader.maxTimeToWaitForEpoch=-1\nforceSnapshotSync=false\n\
               syncEnabled=true\ntcpKeepAlive=true\ndb.autocreate=false\npeerType=participant";
    assert_eq!(load_member(off).unwrap().notes, []);
}

#[test]
fn a_member_that_would_be_less_safe_than_it_was_told_to_be_is_refused() {
    for (text, reason) in [
        ("sslQuorum=true", "there is no TLS here, and servers would talk to each other in the"),
        ("quorum.auth.learnerRequireSasl=true", "there is no SASL here, so anybody who reaches"),
        ("quorum.auth.serverRequireSasl=TRUE", "there is no SASL here, so anybody who reaches"),
    ] {
        let complaint = load_member(text).unwrap_err();
        let expected = format!("FOLDER/zoo.cfg, line 8: {text}: {reason}");
        assert!(complaint.starts_with(&expected), "{complaint}");
        // A server alone has nobody to talk to.
        assert_eq!(load(&format!("clientPort=0\n{text}")).unwrap().notes, []);
    }
    let complaint = load("secureClientPort=2281").unwrap_err();
    let expected = "FOLDER/zoo.cfg, line 2: secureClientPort=2281: there is no TLS here, so nobody";
    assert!(complaint.starts_with(expected), "{complaint}");
}

#[test]
fn one_server_alone_runs_standalone_unless_that_is_switched_off() {
    check_note("server.1=a:1:2", tracing::Level::WARN, "this runs standalone");
    let text = "standaloneEnabled=false\ninitLimit=1\nsyncLimit=1\nserver.1=a:1:2;2181";
    let config = load_with_id(&format!("clientPort=2181\n{text}"), Some("1")).unwrap();
    assert!(config.is_distributed());
    check_refused(
        "standaloneEnabled=false",
        "configuration: standaloneEnabled is false, so there must be at least one server.N line",
    );
}

#[test]
fn random_bytes_are_read_or_refused_but_never_a_panic() {
    let words = [
        "server.1",
        "dataDir",
        "=",
        ":",
        "\\",
        "\n",
        "\\u00",
        "é",
        "tickTime",
        "9",
        ";",
        "clientPort",
        "group.1",
        "[",
        "]",
        "weight.",
        "authProvider.1",
        "4lw.commands.whitelist",
        "minSessionTimeout",
        "-",
        "99999999999",
        "\0",
        " ",
        "#",
        "|",
        "true",
        "a:1:2",
        "\r",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..1_000 {
        let mut bytes = Vec::new();
        for _ in 0..random(24) {
            match random(3) {
                0 => bytes.push(random(256) as u8),
                _ => bytes.extend_from_slice(words[random(words.len())].as_bytes()),
            }
        }
        let mut settings = Settings::default();
        if settings.add_file(Path::new("zoo.cfg"), &bytes).is_ok() {
            let resolves = settings.get("clientPortAddress").is_some();
            assert!(!resolves, "the words must not make the test look up names");
            let mut checker = Checker::new(&settings, false);
            let mut config = checker.config();
            checker.check_whole(&mut config);
        }
    }
}

#[test]
fn what_was_meant_is_said_beside_what_is_missing() {
    let error = load("clientport=2181").unwrap_err();
    let [missing, hint] = error.lines().collect::<Vec<_>>()[..] else { panic!("{error}") };
    assert!(missing.contains("clientPort is not set"), "{missing}");
    assert!(hint.contains("line 2") && hint.contains("did you mean clientPort?"), "{hint}");
}

#[test]
fn a_myid_that_is_wrong_is_one_complaint() {
    let members = "clientPort=0\ninitLimit=1\nsyncLimit=1\nserver.1=a:1:2\nserver.2=b:1:2";
    let error = load_with_id(members, Some("one")).unwrap_err();
    assert_eq!(error, "FOLDER/myid, line 1: myid must be a number in the first line");
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("myid")).unwrap();
    let error = read_my_id(folder.0.path()).unwrap_err().to_string();
    assert!(error.ends_with("myid must be a file"), "{error}");
}

#[test]
fn an_address_in_brackets_and_a_hexadecimal_number_are_what_java_makes_of_them() {
    let config = load("clientPort=1\nclientPortAddress=[::1]\njute.maxbuffer=0xfffff").unwrap();
    let host = Some("::1".parse().unwrap());
    assert_eq!(config.listen, Some(Listen { host, port: 1 }));
    assert_eq!(config.packet_bytes_max, 0xf_ffff);
}

#[test]
fn a_client_port_that_is_said_twice_is_the_same() {
    let with = |port| {
        let members = "server.1=127.0.0.1:1:2;127.0.0.1:2181\nserver.2=b:1:2;2181";
        load_with_id(&format!("clientPort={port}\ninitLimit=1\nsyncLimit=1\n{members}"), Some("1"))
    };
    assert_eq!(with(2181).unwrap().listen.map(|listen| listen.port), Some(2181));
    let error = with(2182).unwrap_err();
    assert!(error.contains("line 2") && error.contains("of this server says 2181"), "{error}");
}
