//! Answers compared with what a ZooKeeper 3.9.3 gave in the same situation.

use engine::ids::Xid;

use super::*;
use crate::four_letter::report::{Mode, SessionReport};

fn server() -> ServerReport {
    ServerReport {
        mode: Mode::Standalone,
        latency: LatencyReport { min_ms: 0, average: Average::of(23, 9), max_ms: 9 },
        packets_received: 11,
        packets_sent: 10,
        connections: 4,
        outstanding: 0,
        zxid: Zxid(0x1_0000_0003),
        znodes: 8,
        proposals: None,
    }
}

fn reader() -> ConnectionReport {
    ConnectionReport {
        peer: "127.0.0.1:48104".parse().unwrap(),
        reads: true,
        writes: false,
        queued: 0,
        received: 7,
        sent: 7,
        session: Some(SessionReport {
            id: SessionId(0x0100_001b_2533_0000),
            last_operation: operation(OpCode::GetChildren),
            established: WallTime(1_795_400_740_171),
            timeout_ms: 10_000,
            last_xid: Xid(6),
            last_zxid: Zxid(4),
            last_response_ms: 1_799_954,
            last_latency_ms: 1,
            latency: LatencyReport { min_ms: 0, average: Average::of(27, 7), max_ms: 9 },
        }),
    }
}

fn stranger() -> ConnectionReport {
    ConnectionReport {
        peer: "[::1]:48114".parse().unwrap(),
        reads: false,
        writes: true,
        queued: 1,
        received: 0,
        sent: 0,
        session: None,
    }
}

#[test]
fn srvr_lists_the_server() {
    let rest = "\
Latency min/avg/max: 0/2.5556/9
Received: 11
Sent: 10
Connections: 4
Outstanding: 0
Zxid: 0x100000003
Mode: standalone
Node count: 8
";
    assert_eq!(srvr(&server()), format!("Zookeeper version: {}\n{rest}", version::FULL));
}

#[test]
fn a_leader_adds_its_proposals() {
    let sizes = SizeReport { last: 87, min: 48, max: 87 };
    let leader = ServerReport { mode: Mode::Leader, proposals: Some(sizes), ..server() };
    assert!(srvr(&leader).ends_with("Proposal sizes last/min/max: 87/48/87\n"));
}

#[test]
fn stat_inserts_the_clients() {
    let answer = stat(&server(), &[reader(), stranger()]);
    let expected = "UTC
Clients:
 /127.0.0.1:48104[1](queued=0,recved=7,sent=7)
 /[0:0:0:0:0:0:0:1]:48114[4](queued=1,recved=0,sent=0)

Latency min/avg/max: 0/";
    assert!(answer.contains(expected), "{answer}");
    assert!(stat(&server(), &[]).contains("UTC\nClients:\n\nLatency"));
}

#[test]
fn cons_tells_all_of_a_connection() {
    let expected = " /127.0.0.1:48104[1](queued=0,recved=7,sent=7,sid=0x100001b25330000,lop=GETC,\
                    est=1795400740171,to=10000,lcxid=0x6,lzxid=0x4,lresp=1799954,llat=1,minlat=0,\
                    avglat=3,maxlat=9)\n \
                    /[0:0:0:0:0:0:0:1]:48114[4](queued=1,recved=0,sent=0)\n\n";
    assert_eq!(cons(&[reader(), stranger()]), expected);
}

#[test]
fn cons_leaves_out_the_numbers_of_special_requests() {
    let mut report = reader();
    report.session.as_mut().unwrap().last_xid = Xid(-2);
    assert!(cons(&[report]).contains("to=10000,lzxid=0x4"));
}

#[test]
fn conf_and_dirs_tell_the_configuration() {
    let config = ConfigReport {
        client_port: 2181,
        secure_client_port: None,
        data_dir: "/d/version-2".into(),
        data_dir_bytes: 458,
        data_log_dir: "/l/version-2".into(),
        data_log_bytes: 67_108_880,
        tick_ms: 2_000,
        client_cnxns_max: 60,
        session_timeout_min_ms: 4_000,
        session_timeout_max_ms: 40_000,
        listen_backlog: -1,
        server_id: 0,
        member: None,
    };
    let expected = "clientPort=2181\nsecureClientPort=-1\ndataDir=/d/version-2\ndataDirSize=458\n\
                    dataLogDir=/l/version-2\ndataLogSize=67108880\ntickTime=2000\n\
                    maxClientCnxns=60\nminSessionTimeout=4000\nmaxSessionTimeout=40000\n\
                    clientPortListenBacklog=-1\nserverId=0\n";
    assert_eq!(conf(&config), expected);
    let member = MemberReport {
        init_limit: 10,
        sync_limit: 5,
        election_ports: vec![3888, 3889],
        quorum_ports: vec![2888, 2889],
        is_observer: true,
        voters: 3,
        membership: "server.1=a:1:2:participant\nversion=0".to_owned(),
    };
    let expected = expected.replace("serverId=0", "serverId=4")
        + "initLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3888|3889\n\
           quorumPort=2888|2889\npeerType=1\nmembership: \nserver.1=a:1:2:participant\nversion=0";
    let of_member = ConfigReport { server_id: 4, member: Some(member), ..config.clone() };
    assert_eq!(conf(&of_member), expected);
    assert_eq!(dirs(&config), "datadir_size: 458\nlogdir_size: 67108880\n");
}

#[test]
fn dump_lists_sessions_ephemerals_and_connections() {
    let session = SessionId(0x0100_001b_2533_0000);
    let time = WallTime(1_795_400_750_123);
    let report = DumpReport {
        sessions: SessionsReport::Deadlines(vec![(
            time,
            vec![SessionId(0x0100_001b_2533_0001), session],
        )]),
        ephemerals: vec![(session, vec!["/e".to_owned(), "/e2".to_owned()])],
        connections: vec![(time, vec![("127.0.0.1:48114".parse().unwrap(), SessionId::NONE)])],
    };
    let expected = "SessionTracker dump:
Session Sets (1)/(2):
2 expire at Mon Nov 23 02:25:50 UTC 2026:
\t0x100001b25330001
\t0x100001b25330000
ephemeral nodes dump:
Sessions with Ephemerals (1):
0x100001b25330000:
\t/e
\t/e2
Connections dump:
Connections Sets (1)/(1):
1 expire at Mon Nov 23 02:25:50 UTC 2026:
\tip: /127.0.0.1:48114 sessionId: 0x0
";
    assert_eq!(dump(&report), expected);
    let sessions = SessionsReport::Timeouts(vec![(session, 30_000)]);
    let of_learner = dump(&DumpReport { sessions, ..report });
    let expected = "SessionTracker dump:\nGlobal Sessions(1):\n0x100001b25330000\t30000ms\n\
                    ephemeral nodes dump:\n";
    assert!(of_learner.starts_with(expected), "{of_learner}");
}

#[test]
fn watches_are_told_by_session_by_path_and_in_sum() {
    let (one, two) = (SessionId(0x0100_001b_2533_0001), SessionId(0x0100_001b_2533_0000));
    let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
    let report =
        WatchReport { connections: vec![(one, paths(&["/a"])), (two, paths(&["/a", "/nope"]))] };
    assert_eq!(wchs(&report), "2 connections watching 2 paths\nTotal watches:3\n");
    assert_eq!(wchc(&report), "0x100001b25330001\n\t/a\n0x100001b25330000\n\t/a\n\t/nope\n\n");
    assert_eq!(
        wchp(&report),
        "/a\n\t0x100001b25330001\n\t0x100001b25330000\n/nope\n\t0x100001b25330000\n\n"
    );
    assert_eq!(wchs(&WatchReport::default()), "0 connections watching 0 paths\nTotal watches:0\n");
    assert_eq!(wchc(&WatchReport::default()), "\n");
}

#[test]
fn the_small_answers_end_as_they_do_in_zookeeper() {
    assert_eq!(constant(Word::Ruok), Some("imok"));
    assert_eq!(constant(Word::Crst), Some("Connection stats reset.\n"));
    assert_eq!(constant(Word::Srst), Some("Server stats reset.\n"));
    assert_eq!(constant(Word::Srvr), None);
    assert_eq!(constant(Word::Isro), Some("rw"));
    assert_eq!((trace_mask(TRACE_MASK), trace_mask(-3)), ("306".to_owned(), "-3".to_owned()));
    assert_eq!(
        envi(&EnvironmentReport(vec![("os.name", "Linux".to_owned())])),
        "Environment:\nos.name=Linux\n"
    );
    assert_eq!(hash(&[(Zxid(0x80), 42)]), "80: 42\n");
}

#[test]
fn refusals_name_the_word_or_the_state() {
    let expected = "mntr is not executed because it is not in the whitelist.\n";
    assert_eq!(not_allowed(Word::Mntr), expected);
    assert!(not_allowed(Word::TelnetClose).starts_with("telnet close is not"));
    assert_eq!(not_serving(Word::Ruok), None);
    assert_eq!(not_serving(Word::Isro).as_deref(), Some("null"));
    for word in [Word::Srvr, Word::Conf, Word::Dirs, Word::Srst, Word::Crst] {
        assert_eq!(not_serving(word), Some(format!("{NOT_SERVING}\n")));
    }
    assert_eq!(not_serving(Word::Hash).as_deref(), Some(NOT_SERVING));
}

#[track_caller]
fn check_average(sum: u64, count: u64, expected: &str) {
    assert_eq!(Average::of(sum, count).to_string(), expected);
}

#[test]
fn averages_have_four_decimals_at_most_rounded_half_up() {
    check_average(0, 0, "0.0");
    check_average(0, 3, "0.0");
    check_average(61, 4, "15.25");
    assert_eq!(Average::ms_of(61_000, 4), Average::of(61, 4));
    assert_eq!((Average::of(27, 7).whole(), Average::default().whole()), (3, 0));
    check_average(2, 3, "0.6667");
    check_average(1, 32, "0.0313");
    check_average(1, 20_000, "1.0E-4");
    check_average(1, 30_000, "0.0");
    check_average(20_000_000, 1, "2.0E7");
    check_average(u64::MAX, 1, "1.8446744073709552E19");
}

#[test]
fn doubles_print_as_in_java() {
    let shown = [0.0, 1.0, -2.5, 0.001, 0.000_5, 9_999_999.0, 1e7, 1.25e10].map(java_double);
    let java = ["0.0", "1.0", "-2.5", "0.001", "5.0E-4", "9999999.0", "1.0E7", "1.25E10"];
    assert_eq!(shown, java);
}

#[test]
fn dates_print_as_in_java() {
    assert_eq!(java_date(WallTime(0)), "Thu Jan 01 00:00:00 UTC 1970");
    assert_eq!(java_date(WallTime(1_709_251_199_999)), "Thu Feb 29 23:59:59 UTC 2024");
    assert_eq!(java_date(WallTime(i64::MAX)), "Thu Jan 01 00:00:00 UTC 1970");
}
