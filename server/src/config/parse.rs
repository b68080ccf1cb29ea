//! The syntax of `zoo.cfg`: that of `java.util.Properties`, which ZooKeeper reads it with.
//!
//! Bytes are Latin-1 characters. `#` and `!` begin a comment where a line begins; a line that ends
//! in an odd number of backslashes goes on in the next, whose leading blanks are dropped. A key
//! ends at the first blank, `=` or `:` that no backslash protects; one such separator and the
//! blanks around it are skipped. `\t`, `\n`, `\r`, `\f` and `\uXXXX` mean what they mean in Java,
//! before any other character a backslash means nothing.
//!
//! One thing differs: where Java makes an entry without key and value from a lone backslash at
//! the very end, there is none here.
//!
//! Invariant: any bytes give entries or an error, never a panic, and no more text than they hold.

/// One `key = value` of a file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line that it begins in, from 1.
    pub line: usize,
    /// The key, without blanks around it.
    pub key: String,
    /// The value, without blanks around it.
    pub value: String,
}

/// A `\u` that four hexadecimal digits do not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \\u needs four hexadecimal digits after it (write \\\\ for a backslash)")]
pub struct BadEscape {
    /// The line, from 1.
    pub line: usize,
}

/// Reads the entries of `bytes`. A key may come more than once; the last one counts.
// Compat: java.util.Properties.load, and the trimming in QuorumPeerConfig.parseProperties
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, BadEscape> {
    let mut lines = LogicalLines { rest: bytes, line: 1 };
    let mut entries = Vec::new();
    while let Some((line, text)) = lines.next_line() {
        let (key, value) = split(&text);
        let unescape = |part: &[u8]| unescape(part).ok_or(BadEscape { line });
        let (key, value) = (unescape(key)?, unescape(value)?);
        entries.push(Entry { line, key: trim(&key), value: trim(&value) });
    }
    Ok(entries)
}

/// Lines as Properties sees them: comments and empty ones gone, continued ones joined.
struct LogicalLines<'a> {
    rest: &'a [u8],
    line: usize,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\x0c')
}

impl LogicalLines<'_> {
    fn next_line(&mut self) -> Option<(usize, Vec<u8>)> {
        loop {
            let line = self.line;
            let natural = skip_blanks(self.natural_line()?);
            if natural.is_empty() || matches!(natural[0], b'#' | b'!') {
                continue;
            }
            let mut text = natural.to_vec();
            while ends_in_continuation(&text) {
                text.pop();
                // A line of nothing but a backslash leaves the next one a first line.
                if text.is_empty() {
                    break;
                }
                let Some(next) = self.natural_line() else {
                    break;
                };
                text.extend_from_slice(skip_blanks(next));
            }
            if !text.is_empty() {
                return Some((line, text));
            }
        }
    }

    /// Up to the next `\n`, `\r` or `\r\n`.
    fn natural_line(&mut self) -> Option<&[u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let is_end = |&byte: &u8| byte == b'\n' || byte == b'\r';
        let Some(end) = self.rest.iter().position(is_end) else {
            return Some(std::mem::take(&mut self.rest));
        };
        let (line, rest) = self.rest.split_at(end);
        let ending = if rest.starts_with(b"\r\n") { 2 } else { 1 };
        self.rest = &rest[ending..];
        Some(line)
    }
}

fn ends_in_continuation(text: &[u8]) -> bool {
    text.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The raw key and value of a logical line.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let ends_key = |&byte: &u8| {
        let ends = !escaped && (is_blank(byte) || matches!(byte, b'=' | b':'));
        escaped = byte == b'\\' && !escaped;
        ends
    };
    let (key, rest) = text.split_at(text.iter().position(ends_key).unwrap_or(text.len()));
    let rest = skip_blanks(rest);
    match rest {
        [b'=' | b':', value @ ..] => (key, skip_blanks(value)),
        value => (key, value),
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|&&byte| is_blank(byte)).count()..]
}

/// Resolves the escapes; `None` for a bad `\u`.
fn unescape(raw: &[u8]) -> Option<String> {
    // Java's characters are UTF-16 units, and two escapes may make one character.
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        let unit = match byte {
            b'\\' => match bytes.next() {
                None => break,
                Some(b't') => 0x09,
                Some(b'n') => 0x0a,
                Some(b'r') => 0x0d,
                Some(b'f') => 0x0c,
                Some(b'u') => {
                    let (digits, rest) = bytes.as_slice().split_first_chunk::<4>()?;
                    bytes = rest.iter();
                    hexadecimal(*digits)?
                }
                Some(&other) => u16::from(other),
            },
            plain => u16::from(plain),
        };
        units.push(unit);
    }
    Some(String::from_utf16_lossy(&units))
}

fn hexadecimal(digits: [u8; 4]) -> Option<u16> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | digit as u16)
    })
}

/// What Java's `String.trim` cuts: everything up to the space.
fn trim(text: &str) -> String {
    text.trim_matches(|letter| letter <= ' ').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &[(usize, &str, &str)]) {
        let entries = parse(bytes).unwrap();
        let entries: Vec<_> =
            entries.iter().map(|entry| (entry.line, &*entry.key, &*entry.value)).collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn keys_end_at_a_blank_an_equals_sign_or_a_colon() {
        check(
            b"a=1\nb:2\nc 3\nd = 4\ne\t:\t5",
            &[(1, "a", "1"), (2, "b", "2"), (3, "c", "3"), (4, "d", "4"), (5, "e", "5")],
        );
        check(b"server.1=h:2888:3888;2181", &[(1, "server.1", "h:2888:3888;2181")]);
        check(b"a==b", &[(1, "a", "=b")]);
        check(b"a", &[(1, "a", "")]);
        check(b"=b", &[(1, "", "b")]);
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_but_counted() {
        check(
            b"# x=1\n\n  ! y=2 \\\n \t\na=1 # no comment\r\n\rb=2",
            &[(5, "a", "1 # no comment"), (7, "b", "2")],
        );
    }

    #[test]
    fn a_backslash_at_the_end_continues_the_line() {
        check(b"a = 1\\\n   2\\\r\n3\nb=x", &[(1, "a", "123"), (4, "b", "x")]);
        check(b"a=1\\\n# no comment", &[(1, "a", "1# no comment")]);
        check(b"a=1\\\\\nb=2", &[(1, "a", "1\\"), (2, "b", "2")]);
        check(b"a=1\\\n\nb=2", &[(1, "a", "1"), (3, "b", "2")]);
        check(b"a=1\\", &[(1, "a", "1")]);
        check(b"\\\n#x=1\n\\\nb=2\n\\", &[(4, "b", "2")]);
    }

    #[test]
    fn escapes_are_those_of_java() {
        check(b"a\\ b\\=c=d\\:e", &[(1, "a b=c", "d:e")]);
        check(b"dir=C\\:\\\\data\\q", &[(1, "dir", "C:\\dataq")]);
        check(b"a=x\\ty\\u0041\\ud83d\\ude00", &[(1, "a", "x\tyA\u{1f600}")]);
    }

    #[test]
    fn bytes_are_latin_1_and_the_value_is_trimmed() {
        check(b"a=d\xe9 \t ", &[(1, "a", "d\u{e9}")]);
        check(b"a=\\u0020x\\n", &[(1, "a", "x")]);
    }

    #[test]
    fn a_bad_unicode_escape_names_its_line() {
        for bytes in [&b"\na=\\u12"[..], b"\na=\\u12g4", b"\n\\u+123=x"] {
            assert_eq!(parse(bytes), Err(BadEscape { line: 2 }));
        }
    }
}
