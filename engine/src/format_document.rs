//! For tests: what `docs/format.md` says of bytes whose constants no other crate can see.

/// The section of the document with this heading.
fn section(heading: &str) -> &'static str {
    let document = include_str!("../../docs/format.md");
    let (_, rest) = document.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split_once("\n#").map_or(rest, |(section, _)| section)
}

/// Asserts that these are the fields of a section's table: offset, bytes, name. Rows without both
/// numbers are left out.
#[track_caller]
pub(crate) fn assert_fields(heading: &str, fields: &[(usize, usize, &str)]) {
    let rows = section(heading).lines().filter(|line| line.starts_with('|')).filter_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        Some((cells[1].parse().ok()?, cells[2].parse().ok()?, cells[3]))
    });
    assert_eq!(rows.collect::<Vec<_>>(), fields, "docs/format.md, {heading}");
}

/// Asserts that a section has all these words.
#[track_caller]
pub(crate) fn assert_says<const N: usize>(heading: &str, words: [String; N]) {
    for words in words {
        assert!(section(heading).contains(&words), "docs/format.md, {heading} lacks: {words}");
    }
}
