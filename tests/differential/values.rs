//! Paths, data and access lists as the generator draws them: mostly plausible ones that meet each
//! other, some at and beyond every rule.

use crate::random::Random;
use crate::wire::Writer;

/// A string or buffer of the protocol, which may be null or not be text.
pub type Text = Option<Vec<u8>>;

const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "q", "n-", "\u{e9}", "a.b", "..x"];

const SPECIAL: [&str; 8] = [
    "/",
    "/zookeeper",
    "/zookeeper/quota",
    "/zookeeper/config",
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/zookeeper_stats",
    "/zookeeper/quota/b/c/zookeeper_limits",
];

const INVALID: [&[u8]; 20] = [
    b"",
    b"a",
    b"a/b",
    b"//",
    b"/a/",
    b"/a//b",
    b"/.",
    b"/..",
    b"/a/./b",
    b"/a/../b",
    b"/a\0b",
    b"/a\x01",
    b"/a\x1f",
    b"/a\x7f",
    "/\u{85}".as_bytes(),
    "/\u{f8fe}".as_bytes(),
    "/\u{fff5}".as_bytes(),
    "/\u{1f600}".as_bytes(),
    b"/a\xff\xfe",
    b"/\xed\xa0\x80",
];

/// The nodes that exist, as far as the replies tell.
#[derive(Debug, Default)]
pub struct Known {
    pub paths: Vec<String>,
}

impl Known {
    const MOST: usize = 300;

    pub fn add(&mut self, path: String) {
        if self.paths.len() < Self::MOST && !self.paths.contains(&path) {
            self.paths.push(path);
        }
    }

    pub fn remove(&mut self, path: &str) {
        self.paths.retain(|known| known != path);
    }
}

pub fn existing(random: &mut Random, known: &Known) -> String {
    if known.paths.is_empty() { "/".to_owned() } else { random.pick(&known.paths).clone() }
}

/// A child of a node that probably exists.
pub fn child(random: &mut Random, known: &Known) -> String {
    let parent = if random.percent(40) { "/".to_owned() } else { existing(random, known) };
    let name = random.pick(&NAMES);
    match parent.as_str() {
        "/" => format!("/{name}"),
        // Nothing of value lies below the numbered and the deep.
        deep if deep.matches('/').count() > 4 => format!("/{name}"),
        parent => format!("{parent}/{name}"),
    }
}

pub fn any_path(random: &mut Random, known: &Known) -> Text {
    let path = match random.weighted(&[62, 25, 7, 4, 1, 1]) {
        0 => existing(random, known),
        1 => child(random, known),
        2 => (*random.pick(&SPECIAL)).to_owned(),
        3 => return Some(random.pick(&INVALID).to_vec()),
        4 => return None,
        _ => format!("/{}", "long".repeat(random.below(2000))),
    };
    Some(path.into_bytes())
}

pub fn data(random: &mut Random) -> Text {
    match random.weighted(&[5, 10, 70, 12, 3]) {
        0 => None,
        1 => Some(Vec::new()),
        2 => {
            let length = random.below(40);
            Some((0..length).map(|_| b'a' + random.below(26) as u8).collect())
        }
        3 => {
            let length = random.below(300);
            Some((0..length).map(|_| random.next() as u8).collect())
        }
        _ => Some(vec![random.next() as u8; random.below(5000)]),
    }
}

/// Whether a node of that path has the limits of a quota.
pub fn are_limits(path: &Text) -> bool {
    String::from_utf8_lossy(path.as_deref().unwrap_or_default()).contains("zookeeper_limits")
}

/// What a node of that path may hold: a server takes the text of quota nodes for granted, and a
/// real one stops at nonsense there.
pub fn data_for(random: &mut Random, path: &Text) -> Text {
    let text = path.as_deref().unwrap_or_default();
    if String::from_utf8_lossy(text).contains("zookeeper_stats") {
        return Some(b"count=0,bytes=0".to_vec());
    }
    if are_limits(path) {
        return Some(limits(random).into_bytes());
    }
    data(random)
}

fn limits(random: &mut Random) -> String {
    let soft = format!("count={},bytes={}", small(random), small(random));
    match random.below(4) {
        0 => soft,
        1 => format!("{soft}=;byteHardLimit={};countHardLimit={}", small(random), small(random)),
        2 => format!("{soft}=;countHardLimit={};byteHardLimit=-1", small(random)),
        _ => "count=-1,bytes=-1".to_owned(),
    }
}

fn small(random: &mut Random) -> i64 {
    if random.percent(20) { -1 } else { random.below(60) as i64 }
}

pub fn version(random: &mut Random) -> i32 {
    match random.weighted(&[65, 30, 5]) {
        0 => -1,
        1 => random.below(4) as i32,
        _ => *random.pick(&[-2, i32::MAX, i32::MIN, 1000]),
    }
}

/// One entry of an access list: permissions, scheme, id.
type Entry = (i32, Text, Text);

fn entry(random: &mut Random) -> Entry {
    const IDENTITIES: [(&str, &str); 20] = [
        ("world", "anyone"),
        ("world", "anyone"),
        ("world", "somebody"),
        ("auth", ""),
        ("auth", "whatever"),
        ("digest", "alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E="),
        ("digest", "bob:t6EE4g1VcSWwVE0HlwKXoBOX6Vk="),
        ("digest", "nocolon"),
        ("digest", "a:b:c"),
        ("digest", ""),
        ("ip", "127.0.0.1"),
        ("ip", "127.0.0.0/8"),
        ("ip", "10.0.0.0/8"),
        ("ip", "127.0.0.1/33"),
        ("ip", "127.0.0.1/x"),
        ("ip", "256.1.1.1"),
        ("ip", "nonsense"),
        ("sasl", "someone"),
        ("x509", "CN=x"),
        ("unheard", "of"),
    ];
    let permissions = *random.pick(&[31, 31, 31, 1, 2, 3, 4, 8, 12, 15, 16, 17, 30, 0, 32, -1]);
    let (scheme, id) = *random.pick(&IDENTITIES);
    let text = |text: &str| Some(text.as_bytes().to_vec());
    match random.below(60) {
        0 => (permissions, None, text(id)),
        // A null id is an exception inside the real server for some schemes, and harmless.
        1 => (permissions, text(scheme), None),
        _ => (permissions, text(scheme), text(id)),
    }
}

/// Appends an access list to a request and says what it was. With `nulls`, some of its strings may
/// be null.
pub fn access_list(random: &mut Random, writer: &mut Writer, nulls: bool) -> String {
    let anyone = || (31, Some(b"world".to_vec()), Some(b"anyone".to_vec()));
    let mut entries: Vec<Entry> = match random.weighted(&[70, 8, 12, 8, 1, 1]) {
        0 => vec![anyone()],
        1 => vec![(31, Some(b"auth".to_vec()), Some(Vec::new()))],
        2 => vec![entry(random)],
        3 => {
            let mut entries: Vec<Entry> = (0..random.below(4)).map(|_| entry(random)).collect();
            entries.push(entries.first().cloned().unwrap_or_else(anyone));
            entries
        }
        4 => Vec::new(),
        _ => {
            let count = *random.pick(&[-1, -7]);
            writer.int(count);
            return format!("acl count {count}");
        }
    };
    if !nulls {
        for (_, scheme, id) in &mut entries {
            scheme.get_or_insert_default();
            id.get_or_insert_default();
        }
    }
    writer.int(entries.len() as i32);
    let mut label = "acl=[".to_owned();
    for (permissions, scheme, id) in &entries {
        writer.int(*permissions).buffer(scheme.as_deref()).buffer(id.as_deref());
        label.push_str(&format!("{permissions} {}:{}, ", shown(scheme), shown(id)));
    }
    label + "]"
}

pub fn shown(text: &Text) -> String {
    match text {
        None => "null".to_owned(),
        Some(text) if text.len() > 60 => format!("{} bytes", text.len()),
        Some(text) => crate::normal::show(text),
    }
}
