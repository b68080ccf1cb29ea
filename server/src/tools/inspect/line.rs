//! A record as a line: a kind and fields, as text for people or as a JSON object for programs.
//!
//! Numbers that may not fit the 53 bits of a JSON number in other languages (zxids, sessions,
//! digests) are text, in hexadecimal, as ZooKeeper's own tools show them.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value};

/// For whom lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tools) enum Form {
    /// `kind  field=value field=value`
    Text,
    /// A JSON object each.
    Json,
}

/// A record.
#[derive(Clone, Debug)]
pub(super) struct Line {
    kind: &'static str,
    fields: Map<String, Value>,
}

impl Line {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, fields: Map::new() }
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.value(name, Value::from(value));
    }

    pub(super) fn number(&mut self, name: &str, value: impl Into<Value>) {
        self.value(name, value.into());
    }

    pub(super) fn hex(&mut self, name: &str, value: u64) {
        self.value(name, Value::from(format!("{value:#x}")));
    }

    pub(super) fn value(&mut self, name: &str, value: Value) {
        self.fields.insert(name.to_owned(), value);
    }

    /// The fields, for a value of another line.
    pub(super) fn into_fields(self) -> Map<String, Value> {
        self.fields
    }

    /// The length of data, or the data: text if it is text, else its bytes in hexadecimal.
    pub(super) fn data(&mut self, data: Option<&[u8]>, is_shown: bool) {
        let Some(data) = data else {
            self.value("data", Value::Null);
            return;
        };
        self.number("bytes", data.len());
        if !is_shown {
            return;
        }
        match std::str::from_utf8(data) {
            Ok(text) if text.chars().all(is_readable) => self.text("data", text),
            _ => self.text("data_hex", &hex(data)),
        }
    }
}

fn is_readable(char: char) -> bool {
    !char.is_control() || ['\n', '\r', '\t'].contains(&char)
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes anything");
        text
    })
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct Lines<W> {
    form: Form,
    out: W,
    damages: u64,
    unreadable: u64,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(form: Form, out: W) -> Self {
        Self { form, out, damages: 0, unreadable: 0 }
    }

    /// How often something was damaged.
    pub(super) fn damages(&self) -> u64 {
        self.damages
    }

    /// How many files and directories could not be read.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    pub(super) fn write(&mut self, line: &Line) -> io::Result<()> {
        match self.form {
            Form::Text => self.write_text(line),
            Form::Json => self.write_json(line),
        }
    }

    /// Something is not what it should be.
    pub(super) fn damage(&mut self, offset: u64, reason: &str) -> io::Result<()> {
        self.damages += 1;
        let mut line = Line::new("damage");
        line.number("offset", offset);
        line.text("reason", reason);
        self.write(&line)
    }

    /// Something cannot be read from here on.
    pub(super) fn no_access(&mut self, path: &Path, offset: u64, reason: &str) -> io::Result<()> {
        self.unreadable += 1;
        let mut line = Line::new("unreadable");
        line.text("path", &path.display().to_string());
        line.number("offset", offset);
        line.text("reason", reason);
        self.write(&line)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn write_json(&mut self, line: &Line) -> io::Result<()> {
        write!(self.out, "{{\"kind\":\"{}\"", line.kind)?;
        for (name, value) in &line.fields {
            write!(self.out, ",{}:{value}", Value::from(name.as_str()))?;
        }
        self.out.write_all(b"}\n")
    }

    fn write_text(&mut self, line: &Line) -> io::Result<()> {
        write!(self.out, "{:<12}", line.kind)?;
        for (name, value) in &line.fields {
            match value {
                // As it is, unless that could be misread.
                Value::String(text) if is_plain(text) => write!(self.out, " {name}={text}")?,
                value => write!(self.out, " {name}={value}")?,
            }
        }
        self.out.write_all(b"\n")
    }
}

fn is_plain(text: &str) -> bool {
    let odd = |char: char| char.is_control() || char.is_whitespace() || char == '"' || char == '=';
    !text.is_empty() && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: Form, expect: &str) {
        let mut line = Line::new("znode");
        line.text("path", "/a b");
        line.hex("zxid", 0x1_0000_0001);
        line.number("version", -1);
        line.data(Some(b"\xff\0"), true);
        let mut none = Line::new("znode");
        none.data(None, true);
        none.text("plain", "x");
        let mut out = Vec::new();
        let mut lines = Lines::new(form, &mut out);
        lines.write(&line).unwrap();
        lines.write(&none).unwrap();
        lines.damage(7, "it is torn").unwrap();
        assert_eq!(lines.damages(), 1);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn lines_are_text_for_people_and_json_for_programs() {
        check(
            Form::Text,
            "znode        path=\"/a b\" zxid=0x100000001 version=-1 bytes=2 data_hex=ff00\n\
             znode        data=null plain=x\n\
             damage       offset=7 reason=\"it is torn\"\n",
        );
        check(
            Form::Json,
            "{\"kind\":\"znode\",\"path\":\"/a b\",\"zxid\":\"0x100000001\",\"version\":-1,\
             \"bytes\":2,\"data_hex\":\"ff00\"}\n\
             {\"kind\":\"znode\",\"data\":null,\"plain\":\"x\"}\n\
             {\"kind\":\"damage\",\"offset\":7,\"reason\":\"it is torn\"}\n",
        );
    }
}
