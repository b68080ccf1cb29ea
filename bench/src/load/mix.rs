//! What a load does: kinds of operations and the ratio in which they are mixed.

use std::fmt;
use std::str::FromStr;

/// One operation as it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// create of a new znode.
    Create,
    /// delete of a znode just created.
    Delete,
    /// setData.
    Set,
    /// getData.
    Get,
    /// exists.
    Exists,
    /// getChildren2 of a directory.
    Children,
    /// multi of several setData.
    Multi,
    /// sync.
    Sync,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::Set,
        Self::Get,
        Self::Exists,
        Self::Children,
        Self::Multi,
        Self::Sync,
    ];

    /// Its word on the command line and in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Set => "set",
            Self::Get => "get",
            Self::Exists => "exists",
            Self::Children => "children",
            Self::Multi => "multi",
            Self::Sync => "sync",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A ratio of operations: `get`, `get=90,set=10`, `create-delete`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Mix {
    /// What was given.
    pub text: String,
    /// Whether every created znode is deleted by the next operation of its connection.
    pub deletes: bool,
    weights: Vec<(Kind, u32)>,
    total: u32,
}

impl Mix {
    /// Whether `kind` is part of it.
    pub fn has(&self, kind: Kind) -> bool {
        self.weights.iter().any(|(other, _)| *other == kind)
    }

    /// Whether it needs znodes that are there before.
    pub fn needs_keys(&self) -> bool {
        self.weights.iter().any(|(kind, _)| *kind != Kind::Create)
    }

    /// The kind for a random number.
    pub fn pick(&self, random: u32) -> Kind {
        let mut at = random % self.total;
        for (kind, weight) in &self.weights {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        self.weights[0].0
    }

    /// Whether a random number is needed at all.
    pub fn is_single(&self) -> bool {
        self.weights.len() == 1
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut weights, mut deletes) = (Vec::new(), false);
        for part in text.split(',') {
            let (word, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight: u32 = weight.parse().map_err(|_| format!("{weight} is not a weight"))?;
            let kind = match word.trim() {
                "create-delete" => {
                    deletes = true;
                    Kind::Create
                }
                word => Kind::ALL
                    .into_iter()
                    .find(|kind| kind.word() == word && *kind != Kind::Delete)
                    .ok_or_else(|| format!("{word} is not an operation: give {}", words()))?,
            };
            if weight > 0 {
                weights.push((kind, weight));
            }
        }
        let total = weights.iter().try_fold(0_u32, |sum, (_, weight)| sum.checked_add(*weight));
        match total {
            Some(1..) => {}
            _ => return Err("the weights must add up to more than 0 and less than 2^32".into()),
        }
        let total = total.unwrap_or(1);
        Ok(Self { text: text.to_owned(), deletes, weights, total })
    }
}

fn words() -> String {
    let words = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Delete).map(Kind::word);
    words.chain(["create-delete"]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_keeps_its_ratio() {
        let mix: Mix = "get=90,set=10".parse().unwrap();
        let gets = (0..1000).filter(|random| mix.pick(*random) == Kind::Get).count();
        assert_eq!(gets, 900);
        assert!(!mix.is_single() && mix.has(Kind::Set) && !mix.has(Kind::Create));
    }

    #[test]
    fn what_is_not_an_operation_is_refused_with_the_words_that_are() {
        assert!(Mix::from_str("fetch").unwrap_err().contains("create-delete"));
        assert!(Mix::from_str("get=0").is_err());
        assert!(Mix::from_str("get=4294967295,set=1").is_err());
        assert!(Mix::from_str("create-delete").unwrap().deletes);
    }
}
