//! What is heard, by whom, and what becomes of it: decided, and written down.
//!
//! ```text
//!   .  it lets it pass           v  its vote changes: it tells everybody
//!   c  it keeps it in mind       d  it decides
//!   a  it answers                o  its decision is open again
//! ```
//!
//! Which it is, may depend on what was heard before, and on what time it is: a decision that has
//! waited long enough comes with whatever is heard next. A server without vote is not answered the
//! same again at once.

use std::collections::BTreeMap;

use super::super::*;
use super::Reached;

/// Who hears whose message, of a round older than, the same as or newer than that of its own vote,
/// with a vote that is better, the same, worse, or none. Behind a space is what takes more worlds
/// than the test looks at by itself.
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str, [&str; 3])] = &[
    //receiver    sender       vote       older    same     newer
    ("empty",     "following", "better", [" .cd",  ".cd",   ""     ]),
    ("empty",     "leading",   "better", [" c.d",  ".cd",   " .c"  ]),
    ("empty",     "looking",   "better", [" av",   ".cv d", " .c"  ]),
    ("empty",     "looking",   "none",   ["a",     ".cv",   "."    ]),
    ("following", "following", "better", ["",      ".",     ""     ]),
    ("following", "following", "same",   ["",      ".",     ""     ]),
    ("following", "following", "worse",  ["",      ".",     ""     ]),
    ("following", "leading",   "better", ["",      ".",     ""     ]),
    ("following", "leading",   "same",   ["",      ".",     ""     ]),
    ("following", "leading",   "worse",  ["",      ".",     ""     ]),
    ("following", "looking",   "better", ["",      "ao",    ""     ]),
    ("following", "looking",   "none",   ["",      "a",     "o a"  ]),
    ("following", "looking",   "same",   ["",      "a",     "o a"  ]),
    ("following", "looking",   "worse",  ["",      "a",     "a"    ]),
    ("following", "stranger",  "none",   [" a",    "a .",   " ."   ]),
    ("following", "stranger",  "same",   [" .a",   ".a",    ""     ]),
    ("following", "stranger",  "worse",  ["a .",   ".a",    ""     ]),
    ("idle",      "looking",   "better", ["",      "",      "."    ]),
    ("idle",      "looking",   "none",   ["",      "",      " ."   ]),
    ("idle",      "stranger",  "better", ["",      "",      " ."   ]),
    ("leading",   "following", "better", ["",      " .",    ""     ]),
    ("leading",   "following", "same",   ["",      ".",     ""     ]),
    ("leading",   "following", "worse",  ["",      ".",     ""     ]),
    ("leading",   "looking",   "better", ["",      "ao",    ""     ]),
    ("leading",   "looking",   "none",   [" a",    "a",     " a"   ]),
    ("leading",   "looking",   "same",   ["a",     "a",     ""     ]),
    ("leading",   "looking",   "worse",  ["a",     "a",     "ao"   ]),
    ("leading",   "stranger",  "none",   [" a",    ".a",    ""     ]),
    ("leading",   "stranger",  "same",   ["",      ".a",    ""     ]),
    ("leading",   "stranger",  "worse",  [" a",    ".a",    " .a"  ]),
    ("looking",   "following", "better", [".cd",   ".cd",   ""     ]),
    ("looking",   "following", "same",   [" .c",   ".cd",   ""     ]),
    ("looking",   "following", "worse",  ["",      ".cd",   ""     ]),
    ("looking",   "leading",   "better", [".c d",  ".cd",   ""     ]),
    ("looking",   "leading",   "same",   ["",      "d",     ""     ]),
    ("looking",   "leading",   "worse",  ["",      "cd .",  ""     ]),
    ("looking",   "looking",   "better", ["a",     "dv",    " dv"  ]),
    ("looking",   "looking",   "none",   [" ad",   ". c",   "c ."  ]),
    ("looking",   "looking",   "same",   ["a",     ".cd",   "v"    ]),
    ("looking",   "looking",   "worse",  ["a",     "ad",    "v"    ]),
    ("looking",   "stranger",  "better", [".a",    ".a",    " .a"  ]),
    ("looking",   "stranger",  "none",   [".a",    ".a",    " ."   ]),
    ("looking",   "stranger",  "same",   ["a .",   ".a",    ""     ]),
    ("looking",   "stranger",  "worse",  [" a",    ".a",    ". a"  ]),
    ("observing", "following", "better", ["",      ".",     ""     ]),
    ("observing", "following", "same",   ["",      ".",     ""     ]),
    ("observing", "leading",   "better", ["",      ".",     ""     ]),
    ("observing", "leading",   "same",   ["",      ".",     ""     ]),
    ("observing", "leading",   "worse",  ["",      ".",     ""     ]),
    ("observing", "looking",   "worse",  ["",      "",      " ao"  ]),
    ("watching",  "following", "better", ["",      ".cd",   " cd"  ]),
    ("watching",  "following", "same",   [" c",    "d",     " c"   ]),
    ("watching",  "leading",   "better", [" c",    ".cd",   " .cd" ]),
    ("watching",  "leading",   "same",   ["",      ".cd",   ""     ]),
    ("watching",  "looking",   "better", [" a",    "dv",    "v"    ]),
    ("watching",  "looking",   "same",   ["",      "c",     " v"   ]),
    ("watching",  "looking",   "worse",  [" a",    "c .",   "v"    ]),
];

/// The table, with or without what takes a wide run.
pub(super) fn read(wide: bool) -> Reached {
    let cells = TABLE.iter().flat_map(move |(receiver, sender, vote, cells)| {
        let cell = move |(round, cell): (usize, &&str)| {
            let (usual, more) = cell.split_once(' ').unwrap_or((cell, ""));
            let more = more.chars().filter(|_| wide);
            (Pair { receiver, sender, vote, round }, usual.chars().chain(more).collect())
        };
        cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty()).map(cell)
    });
    cells.collect()
}

/// What is in these and not in those, as rows of the table.
pub(super) fn rows(these: &Reached, those: &Reached) -> Vec<String> {
    let mut rows = BTreeMap::<_, [String; 3]>::new();
    for (pair, whats) in these {
        let known = those.get(pair);
        let new = whats.iter().filter(|what| known.is_none_or(|known| !known.contains(what)));
        for what in new {
            let row = rows.entry((pair.receiver, pair.sender, pair.vote)).or_default();
            row[pair.round].push(*what);
        }
    }
    let row = |((receiver, sender, vote), cells): ((&str, &str, &str), [String; 3])| {
        let [receiver, sender, vote] = [receiver, sender, vote].map(|word| format!("\"{word}\","));
        let [older, same, newer] = cells.map(|cell| format!("\"{cell}\""));
        format!("    ({receiver:<12} {sender:<12} {vote:<9} [{older:>4}, {same:>6}, {newer:>4}]),")
    };
    rows.into_iter().map(row).collect()
}

/// A message and who hears it, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    receiver: &'static str,
    sender: &'static str,
    vote: &'static str,
    round: usize,
}

impl Pair {
    pub(super) fn of(elector: &Elector, sender: ServerId, heard: &Notification) -> Self {
        let receiver = match &elector.state {
            State::Idle => "idle",
            State::Looking(_) if elector.config.is_observer => "watching",
            State::Looking(looking) if looking.proposal().is_some_and(|own| own.zxid.is_none()) => {
                "empty"
            }
            State::Looking(_) => "looking",
            State::Decided(decided) => match decided.state() {
                PeerState::Leading => "leading",
                PeerState::Following => "following",
                PeerState::Observing | PeerState::Looking => "observing",
            },
        };
        let ours = match &elector.state {
            State::Idle => None,
            State::Looking(looking) => looking.proposal().copied(),
            State::Decided(decided) => Some(*decided.vote()),
        };
        let votes = elector.config.members.is_voter(sender);
        let sender = match heard.state {
            PeerState::Looking if !votes => "stranger",
            PeerState::Looking => "looking",
            PeerState::Leading => "leading",
            PeerState::Following => "following",
            PeerState::Observing => "observing",
        };
        let theirs = heard.vote().filter(|vote| vote.zxid.is_some());
        let vote = match (theirs, ours) {
            (None, _) => "none",
            (Some(_), None) => "better",
            (Some(theirs), Some(ours)) => match theirs.rank().cmp(&ours.rank()) {
                std::cmp::Ordering::Greater => "better",
                std::cmp::Ordering::Equal => "same",
                std::cmp::Ordering::Less => "worse",
            },
        };
        let ours = ours.map_or(elector.round, |vote| vote.round);
        let round = heard.round.cmp(&ours) as i8 + 1;
        Self { receiver, sender, vote, round: round as usize }
    }
}
