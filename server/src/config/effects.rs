//! What the log says about settings that do not simply work, and which of them are refused.

use super::keys::{self, Effect, Key, Kind};
use super::settings::{Note, Problem, Setting};

/// About a key that nobody knows.
pub(super) fn unknown(setting: &Setting) -> Note {
    let Setting { key, origin, .. } = setting;
    let hint = match keys::nearest(key) {
        Some(name) => format!("; did you mean {name}?"),
        None => String::new(),
    };
    Note::warn(format!("{origin}: {key} is not a known setting and has no effect{hint}"))
}

/// About a setting of any server. Its value is of the key's kind.
pub(super) fn note(setting: &Setting, key: &Key) -> Option<Note> {
    let Setting { key: name, value, origin } = setting;
    let is_off = match key.kind {
        Kind::Bool => value.eq_ignore_ascii_case("false"),
        Kind::YesNo => value == "no",
        _ => false,
    };
    match key.effect {
        Effect::Missing(_) if is_off => None,
        Effect::Missing(what) => {
            Some(Note::warn(format!("{origin}: {name} has no effect: {what} is missing here")))
        }
        Effect::Always if is_off => {
            Some(Note::warn(format!("{origin}: {name}={value} has no effect: it is always on")))
        }
        Effect::Full | Effect::Always | Effect::Otherwise(..) | Effect::Unsafe(..) => None,
        Effect::Built(why) => Some(Note::info(format!("{origin}: {name} has no effect: {why}"))),
    }
}

/// About a setting that only matters to a member of an ensemble; the error is why it cannot be one.
pub(super) fn for_member(setting: &Setting, key: &Key) -> Result<Option<Note>, Problem> {
    let Setting { key: name, value, origin } = setting;
    match key.effect {
        Effect::Otherwise(usual, instead) if !value.eq_ignore_ascii_case(usual) => {
            Ok(Some(Note::warn(format!("{origin}: {name}={value}: {instead}"))))
        }
        Effect::Unsafe(usual, reason) if !value.eq_ignore_ascii_case(usual) => {
            Err(setting.problem(reason))
        }
        _ => Ok(None),
    }
}
