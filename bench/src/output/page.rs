//! The report as one HTML file: no scripts, nothing fetched.

use std::fmt::Write as _;

use super::charts;
use crate::cli::Outcome;
use crate::compare::Table;

/// How the page looks.
const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:900px;margin:2em auto;\
    padding:0 1em;color:#1b1b1b}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;\
    border-top:1px solid #ddd;padding-top:.8em}pre{background:#f6f6f6;padding:.8em;\
    overflow-x:auto;font-size:13px}table{border-collapse:collapse;font-size:14px}\
    td,th{border:1px solid #ddd;padding:.25em .6em;text-align:right}\
    td:first-child,th:first-child,td:nth-child(2){text-align:left}\
    svg{max-width:100%;height:auto}";

/// The whole page.
pub fn render(outcome: &Outcome) -> anyhow::Result<String> {
    let mut page = String::new();
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>ringkeeper-bench: {0}</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>ringkeeper-bench: {0}</h1>\n",
        escape(outcome.command)
    )?;
    if let Some(table) = &outcome.table {
        page.push_str(&table_section(table)?);
    }
    if outcome.command == "recovery" {
        let loads: Vec<_> = outcome.loads.iter().collect();
        if !loads.is_empty() {
            section(
                &mut page,
                "the load around each killing, 10 ms apart",
                &[charts::throughput(&loads, 10)?],
            )?;
        }
    } else {
        for (title, loads) in groups(&outcome.loads, |load| &load.0) {
            let pictures = [charts::percentiles(&loads)?, charts::throughput(&loads, 100)?];
            section(&mut page, title, &pictures)?;
        }
    }
    for (title, timelines) in groups(&outcome.timelines, |timeline| &timeline.name) {
        section(&mut page, title, &[charts::failovers(&timelines)?])?;
    }
    write!(page, "<h2>summary</h2>\n<pre>{}</pre>\n", escape(&outcome.text))?;
    page.push_str("</body></html>\n");
    Ok(page)
}

/// What belongs to one work, of several servers, belongs into one picture.
fn groups<T>(items: &[T], name: impl Fn(&T) -> &str) -> Vec<(&str, Vec<&T>)> {
    let mut groups: Vec<(&str, Vec<_>)> = Vec::new();
    for item in items {
        let work = name(item).split_once(": ").map_or(name(item), |(_, work)| work);
        match groups.iter_mut().find(|(title, _)| *title == work) {
            Some((_, items)) => items.push(item),
            None => groups.push((work, vec![item])),
        }
    }
    groups
}

fn section(page: &mut String, title: &str, pictures: &[String]) -> anyhow::Result<()> {
    writeln!(page, "<h2>{}</h2>", escape(title))?;
    for picture in pictures {
        writeln!(page, "<figure style=\"margin:0\">{picture}</figure>")?;
    }
    Ok(())
}

fn table_section(table: &Table) -> anyhow::Result<String> {
    let mut section = String::from("<h2>comparison</h2>\n");
    if table.servers.len() > 1 {
        section.push_str(&charts::ratios(&table.rows())?);
    }
    section.push_str("<table>\n");
    for (line, number) in table.markdown().lines().zip(0..) {
        if number == 1 {
            continue;
        }
        let tag = if number == 0 { "th" } else { "td" };
        section.push_str("<tr>");
        for cell in line.trim_matches('|').split(" | ") {
            write!(section, "<{tag}>{}</{tag}>", escape(cell.trim()))?;
        }
        section.push_str("</tr>\n");
    }
    section.push_str("</table>\n");
    Ok(section)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fetches_nothing_and_escapes_what_it_shows() {
        let outcome = Outcome { command: "load", text: "a < b & c".into(), ..Outcome::default() };
        let page = render(&outcome).unwrap();
        assert!(page.contains("a &lt; b &amp; c"));
        for fetching in ["<script", "src=", "http://", "https://", "url("] {
            assert!(!page.contains(fetching), "{fetching}");
        }
    }
}
