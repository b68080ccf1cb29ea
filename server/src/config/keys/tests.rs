//! Tests of the table of settings, and of the page that describes them.

use super::*;

#[track_caller]
fn check(name: &str, value: &str, allowed: Result<(), &str>) {
    let key = find(name).unwrap();
    assert_eq!(key.kind.check(value), allowed.map_err(str::to_owned));
}

#[test]
fn values_must_be_of_their_kind() {
    check("clientPort", "2181", Ok(()));
    check("clientPort", "65536", Err("a whole number from 0 to 65535"));
    check("clientPort", "", Err("a whole number from 0 to 65535"));
    check("clientPort", "21 81", Err("a whole number from 0 to 65535"));
    check("minSessionTimeout", "-1", Ok(()));
    check("snapCount", "0xfffff", Ok(()));
    check("clientPort", "0xfffff", Err("a whole number from 0 to 65535"));
    check("snapCount", "0x-1", Err("a whole number from -2147483648 to 2147483647"));
    check("ringkeeper.cores", "257", Err("a whole number from 0 to 256"));
    check("extendedTypesEnabled", "True", Ok(()));
    check("extendedTypesEnabled", "yes", Err("true or false"));
    check("skipACL", "true", Err("yes or no"));
    check("version", "1a", Ok(()));
    check("version", "1g", Err("a hexadecimal number"));
    check("version", "8000000000000000", Err("a hexadecimal number"));
    check("electionAlg", "0", Err("a whole number from 3 to 3"));
    check("snapshotSizeFactor", "nan", Err("a number"));
    check("dataDir", "", Err("some text"));
    check("4lw.commands.whitelist", "", Ok(()));
}

#[test]
fn numbers_are_decimal_or_hexadecimal() {
    let decoded = ["010", "-0x10", "#1F", "+0X1f", "+7"].map(number);
    assert_eq!(decoded, [Some(10), Some(-16), Some(31), Some(31), Some(7)]);
    assert_eq!(["", "0x", "#-1", "--1", "1f", "0x8000000000000000"].map(number), [None; 6]);
}

#[test]
fn families_are_found_by_their_beginning_and_names_come_first() {
    assert_eq!(find("server.1").unwrap().effect, Effect::Full);
    assert_eq!(find("server.principal").unwrap().effect, SASL);
    assert_eq!(find("quorum.auth.server.saslLoginContext").unwrap().effect, SASL);
    assert_eq!(find("quorum.auth.serverRequireSasl").unwrap().effect, PEER_SASL_REQUIRED);
    assert_eq!(find("ssl.quorum.keyStore.location").unwrap().effect, TLS);
    assert_eq!(find("tickTim"), None);
    assert_eq!(plain("zookeeper.snapCount"), "snapCount");
}

#[test]
fn a_slip_of_the_pen_is_recognised() {
    assert_eq!(nearest("tickTimes"), Some("tickTime"));
    assert_eq!(nearest("clientport"), Some("clientPort"));
    assert_eq!(nearest("autopurge.snapRetainCounts"), Some("autopurge.snapRetainCount"));
    assert_eq!(nearest("colour"), None);
}

#[test]
fn the_documentation_lists_exactly_these() {
    let page = include_str!("../../../../docs/configuration.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut listed: Vec<_> = rows.filter_map(|row| Some(row.split_once("` |")?.0)).collect();
    let mut known: Vec<_> = KEYS.iter().chain(FAMILIES).map(|key| key.name).collect();
    listed.sort_unstable();
    known.sort_unstable();
    let only_in = |these: &[&'static str], those: &[&str]| -> Vec<&'static str> {
        these.iter().filter(|name| !those.contains(name)).copied().collect()
    };
    assert_eq!(only_in(&known, &listed), [""; 0], "missing in the documentation");
    assert_eq!(only_in(&listed, &known), [""; 0], "in the documentation only");
    assert_eq!(listed.len(), known.len(), "something is listed twice");
}

#[test]
fn the_documentation_lists_each_under_what_becomes_of_it() {
    let page = include_str!("../../../../docs/configuration.md");
    let mut section = "";
    for line in page.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        let row = line.strip_prefix("| `").and_then(|row| row.split_once("` |"));
        let Some((name, _)) = row else { continue };
        let expected = match find(name).unwrap().effect {
            Effect::Full => continue,
            Effect::Missing(_) | Effect::Otherwise(..) | Effect::Unsafe(..) => "Not here",
            Effect::Always => "Always on",
            Effect::Built(_) => "Built differently",
        };
        assert_eq!(section, expected, "{name}");
    }
}

#[test]
fn no_name_stands_twice_in_the_table() {
    let mut names: Vec<_> = KEYS.iter().chain(FAMILIES).map(|key| key.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
