//! Four-letter words: what an operator, a script or a monitoring agent asks by opening a
//! connection, sending four letters, and reading text until the server closes.
//!
//! This module knows the words, which of them are allowed, and (in [`text`] and [`monitor`]) how
//! ZooKeeper words its answers. The answers are functions of reports ([`report`]); whoever owns
//! the connections and the tree fills those. A word is recognised where a connection's first
//! packet would have its length: as a length, each of them would be far over any limit.

pub mod monitor;
pub mod report;
pub mod text;

use std::collections::BTreeSet;

use engine::client_core::TELNET_CLOSE;

/// A word that the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// The configuration in effect.
    Conf,
    /// The connections, in full.
    Cons,
    /// Resets the statistics of the connections.
    Crst,
    /// Bytes in the data directories.
    Dirs,
    /// Sessions and ephemerals.
    Dump,
    /// The environment.
    Envi,
    /// The trace mask.
    Gtmk,
    /// Tree digests by zxid.
    Hash,
    /// Whether writes are taken.
    Isro,
    /// Numbers for monitoring.
    Mntr,
    /// Whether the process is there.
    Ruok,
    /// Resets the statistics of the server.
    Srst,
    /// The server.
    Srvr,
    /// The server and its connections.
    Stat,
    /// Sets the trace mask; eight bytes follow.
    Stmk,
    /// Watches by session.
    Wchc,
    /// Watches by path.
    Wchp,
    /// How many watches.
    Wchs,
    /// What telnet sends when its user interrupts it. It is known only so that it is refused as a
    /// word and not as a length.
    TelnetClose,
}

/// What must be collected before a word can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: [`text::constant`] has the answer.
    Nothing,
    /// Whether the server serves; if it does, [`text::constant`] has the answer.
    Role,
    /// Whether the server serves; if it does, something is reset.
    Reset,
    /// [`report::ServerReport`].
    Server,
    /// [`report::ServerReport`] and a [`report::ConnectionReport`] for each connection.
    ServerAndConnections,
    /// A [`report::ConnectionReport`] for each connection.
    Connections,
    /// [`report::ConfigReport`], which includes the sizes of the directories.
    Config,
    /// [`report::EnvironmentReport`].
    Environment,
    /// [`report::DumpReport`].
    Dump,
    /// [`report::WatchReport`].
    Watches,
    /// [`report::ServerReport`] and the metrics of all cores.
    Metrics,
    /// The digest history of the tree.
    Digests,
    /// The eight bytes that follow.
    Mask,
}

impl Word {
    /// Every word.
    pub const ALL: [Self; 19] = [
        Self::Conf,
        Self::Cons,
        Self::Crst,
        Self::Dirs,
        Self::Dump,
        Self::Envi,
        Self::Gtmk,
        Self::Hash,
        Self::Isro,
        Self::Mntr,
        Self::Ruok,
        Self::Srst,
        Self::Srvr,
        Self::Stat,
        Self::Stmk,
        Self::Wchc,
        Self::Wchp,
        Self::Wchs,
        Self::TelnetClose,
    ];

    /// The word that a connection began with, if its first four bytes are one. Unknown letters
    /// are a packet length, and too large a one: the connection is closed without an answer.
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.bytes() == bytes)
    }

    /// The four bytes on the wire.
    pub fn bytes(self) -> [u8; 4] {
        match self {
            Self::TelnetClose => TELNET_CLOSE,
            word => {
                let name = word.name().as_bytes();
                *name.first_chunk().expect("all other names have four letters")
            }
        }
    }

    /// The name in whitelists and answers.
    // Compat: FourLetterCommands.cmd2String
    pub fn name(self) -> &'static str {
        match self {
            Self::Conf => "conf",
            Self::Cons => "cons",
            Self::Crst => "crst",
            Self::Dirs => "dirs",
            Self::Dump => "dump",
            Self::Envi => "envi",
            Self::Gtmk => "gtmk",
            Self::Hash => "hash",
            Self::Isro => "isro",
            Self::Mntr => "mntr",
            Self::Ruok => "ruok",
            Self::Srst => "srst",
            Self::Srvr => "srvr",
            Self::Stat => "stat",
            Self::Stmk => "stmk",
            Self::Wchc => "wchc",
            Self::Wchp => "wchp",
            Self::Wchs => "wchs",
            Self::TelnetClose => "telnet close",
        }
    }

    /// What its answer is made from.
    pub fn needs(self) -> Needs {
        match self {
            Self::Conf | Self::Dirs => Needs::Config,
            Self::Cons => Needs::Connections,
            Self::Dump => Needs::Dump,
            Self::Envi => Needs::Environment,
            Self::Hash => Needs::Digests,
            Self::Isro => Needs::Role,
            Self::Srvr => Needs::Server,
            Self::Mntr => Needs::Metrics,
            Self::Stat => Needs::ServerAndConnections,
            Self::Stmk => Needs::Mask,
            Self::Wchc | Self::Wchp | Self::Wchs => Needs::Watches,
            Self::Crst | Self::Srst => Needs::Reset,
            Self::Gtmk | Self::Ruok | Self::TelnetClose => Needs::Nothing,
        }
    }
}

/// The words that are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whitelist(BTreeSet<Word>);

impl Whitelist {
    /// The words that the value of `4lw.commands.whitelist` allows, and what it names beside
    /// words. `srvr` is always allowed, and `isro` where a server may become read-only, because
    /// clients and scripts of ZooKeeper's own need them.
    // Compat: FourLetterCommands.isEnabled
    pub fn from_setting(list: Option<&str>, read_only_mode: bool) -> (Self, Vec<String>) {
        let mut allowed = BTreeSet::from([Word::Srvr]);
        let mut unknown = Vec::new();
        if read_only_mode {
            allowed.insert(Word::Isro);
        }
        for name in list.unwrap_or_default().split(',').map(str::trim) {
            if name == "*" {
                allowed.extend(Word::ALL);
                break;
            }
            match Word::ALL.into_iter().find(|word| word.name() == name) {
                Some(word) => _ = allowed.insert(word),
                None if name.is_empty() => {}
                None => unknown.push(name.to_owned()),
            }
        }
        (Self(allowed), unknown)
    }

    /// Whether `word` is answered; else the answer is [`text::not_allowed`].
    pub fn allows(&self, word: Word) -> bool {
        self.0.contains(&word)
    }
}

impl Default for Whitelist {
    fn default() -> Self {
        Self::from_setting(None, false).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: Option<&str>, read_only_mode: bool, expected: &[&str], unknown: &[&str]) {
        let (whitelist, left) = Whitelist::from_setting(list, read_only_mode);
        let allowed = Word::ALL.into_iter().filter(|word| whitelist.allows(*word));
        assert_eq!(allowed.map(Word::name).collect::<Vec<_>>(), expected);
        assert_eq!(left, unknown);
    }

    #[test]
    fn srvr_is_always_allowed_and_isro_in_read_only_mode() {
        check(None, false, &["srvr"], &[]);
        check(Some(""), true, &["isro", "srvr"], &[]);
        check(Some(" mntr ,ruok,"), false, &["mntr", "ruok", "srvr"], &[]);
    }

    #[test]
    fn a_star_allows_everything_and_ends_the_list() {
        let (whitelist, unknown) = Whitelist::from_setting(Some("nope,*,never"), false);
        assert!(Word::ALL.into_iter().all(|word| whitelist.allows(word)));
        assert_eq!(unknown, ["nope"]);
    }

    #[test]
    fn what_is_no_word_is_handed_back() {
        check(Some("stats, RUOK"), false, &["srvr"], &["stats", "RUOK"]);
    }

    #[test]
    fn words_are_known_by_their_bytes() {
        for word in Word::ALL {
            assert_eq!(Word::from_bytes(word.bytes()), Some(word));
        }
        assert_eq!(Word::from_bytes(*b"abcd"), None);
        assert_eq!(Word::from_bytes(*b"RUOK"), None);
        assert_eq!(Word::from_bytes([0, 0, 0, 44]), None);
    }

    #[test]
    fn the_documentation_lists_every_word() {
        let page = include_str!("../../docs/operations.md");
        for word in Word::ALL.into_iter().filter(|word| *word != Word::TelnetClose) {
            assert!(page.contains(&format!("\n| `{}` | ", word.name())), "{word:?}");
        }
    }

    #[test]
    fn no_word_could_be_the_length_of_a_packet() {
        for word in Word::ALL {
            let length = i32::from_be_bytes(word.bytes());
            assert!(!(0..=512 << 20).contains(&length), "{word:?}");
        }
    }
}
