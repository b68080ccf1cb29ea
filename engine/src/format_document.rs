//! For tests: what `docs/format.md` says of bytes whose constants no other crate can see.

const DOCUMENT: &str = include_str!("../../docs/format.md");

/// The section of the document with this heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split_once("\n#").map_or(rest, |(section, _)| section)
}

/// Offset, bytes and name of the fields in these rows. Those without both numbers are left out.
fn fields<'a>(rows: impl Iterator<Item = &'a str>) -> Vec<(usize, usize, &'a str)> {
    let field = |row: &'a str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        Some((cells[1].parse().ok()?, cells[2].parse().ok()?, cells[3]))
    };
    rows.filter_map(field).collect()
}

/// Asserts that these are the fields of a section's table: offset, bytes, name.
#[track_caller]
pub(crate) fn assert_fields(heading: &str, expect: &[(usize, usize, &str)]) {
    let rows = section(heading).lines().filter(|line| line.starts_with('|'));
    assert_eq!(fields(rows), expect, "docs/format.md, {heading}");
}

/// Asserts that these are the fields of the table whose third column has this title: name, offset,
/// bytes.
#[track_caller]
pub(crate) fn assert_table(title: &str, expect: &[(&str, usize, usize)]) {
    let heading = format!("| offset | bytes | {title} | why |");
    let rows = DOCUMENT.lines().skip_while(|line| *line != heading);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let expect: Vec<_> =
        expect.iter().map(|(name, offset, bytes)| (*offset, *bytes, *name)).collect();
    assert_eq!(fields(rows), expect, "docs/format.md, {title}");
}

/// Asserts that a section has all these words.
#[track_caller]
pub(crate) fn assert_says<const N: usize>(heading: &str, words: [String; N]) {
    for words in words {
        assert!(section(heading).contains(&words), "docs/format.md, {heading} lacks: {words}");
    }
}
