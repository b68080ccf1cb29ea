//! For tests: what `docs/format.md` says of bytes whose constants no other crate can see.

/// The section of the document with this heading.
pub(crate) fn section(heading: &str) -> &'static str {
    let document = include_str!("../../docs/format.md");
    let (_, rest) = document.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split_once("\n#").map_or(rest, |(section, _)| section)
}

/// Asserts that a section has a row for each field: offset, bytes, name.
#[track_caller]
pub(crate) fn assert_rows(heading: &str, fields: &[(usize, usize, &str)]) {
    let section = section(heading);
    for (offset, bytes, name) in fields {
        let row = format!("| {offset} | {bytes} | {name} |");
        assert!(section.contains(&row), "docs/format.md, {heading} lacks the row {row}");
    }
    let rows = section.lines().filter(|line| line.starts_with('|'));
    let numbered = rows.filter(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        [cells[1], cells[2]].iter().all(|cell| cell.parse::<usize>().is_ok())
    });
    assert_eq!(numbered.count(), fields.len(), "docs/format.md, {heading} has other rows");
}
