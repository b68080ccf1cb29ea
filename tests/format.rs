//! The tables of `docs/format.md` are those of the code.

use std::fs;
use std::path::Path;

use engine::epochs::EPOCHS_FIELDS;
use engine::manifest::MANIFEST_FIELDS;
use engine::slots::{PAYLOAD_BYTES_MAX, SLOT_FIELDS};
use engine::txnlog::format::{FRAME_FIELDS, FRAME_MAGIC, SEGMENT_FIELDS, SEGMENT_MAGIC};

/// Rows of the table whose third column has this title: name, offset, bytes.
fn table(title: &str) -> Vec<(String, usize, usize)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/format.md");
    let text = fs::read_to_string(path).unwrap();
    let heading = format!("| offset | bytes | {title} | why |");
    let rows = text.lines().skip_while(|line| *line != heading).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            (cells[3].to_owned(), cells[1].parse().unwrap(), cells[2].parse().unwrap())
        })
        .collect()
}

#[track_caller]
fn check(title: &str, fields: &[(&str, usize, usize)]) {
    let code: Vec<_> =
        fields.iter().map(|(name, offset, bytes)| ((*name).to_owned(), *offset, *bytes)).collect();
    assert_eq!(table(title), code);
}

#[test]
fn the_tables_are_those_of_the_code() {
    check("segment header", SEGMENT_FIELDS);
    check("frame header", FRAME_FIELDS);
    check("slot", SLOT_FIELDS);
    check("manifest payload", MANIFEST_FIELDS);
    check("epochs payload", EPOCHS_FIELDS);
}

#[test]
fn a_table_that_is_not_there_does_not_pass() {
    assert_eq!(table("nothing"), []);
}

#[test]
fn numbers_in_the_text_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/format.md");
    let text = fs::read_to_string(path).unwrap();
    for magic in [&SEGMENT_MAGIC[..], &FRAME_MAGIC] {
        let magic = str::from_utf8(magic).unwrap();
        assert!(text.contains(&format!("`{magic}`")), "{magic}");
    }
    assert!(text.contains(&format!("at most {PAYLOAD_BYTES_MAX}")));
}
